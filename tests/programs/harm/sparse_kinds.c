// SPDX-License-Identifier: Apache-2.0
/* Address space of many kinds that is hardly touched and holds the only pointers to blocks; one
   block is lost. Prints "ready" and waits for a line when there is a second argument.
   Arguments: the kind, [wait]. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#define TIB (1ul << 40)
#define GIB (1ul << 30)
static void *volatile lost;
static void fill(void **table, size_t bytes) {
  for (int i = 0; i < 3; i++) {
    void **at = table + bytes / sizeof *table / 3 * i + 8;
    for (int k = 0; k < 10; k++) { at[k] = malloc(64); memset(at[k], 1, 64); }
  }
}
static void *map(size_t bytes, int protection, int flags, int fd) {
  void *p = mmap(NULL, bytes, protection, flags | MAP_NORESERVE, fd, 0);
  if (p == MAP_FAILED) { perror("mmap"); exit(2); }
  return p;
}
static __attribute__((noinline)) void set_up(const char *kind) {
  int rw = PROT_READ | PROT_WRITE;
  if (!strcmp(kind, "private")) fill(map(4 * TIB, rw, MAP_PRIVATE | MAP_ANONYMOUS, -1), 4 * TIB);
  else if (!strcmp(kind, "shared")) fill(map(TIB, rw, MAP_SHARED | MAP_ANONYMOUS, -1), TIB);
  else if (!strcmp(kind, "memfd")) {
    int fd = memfd_create("sparse", 0);
    if (ftruncate(fd, TIB)) exit(2);
    fill(map(TIB, rw, MAP_SHARED, fd), TIB);
    close(fd);
  } else if (!strcmp(kind, "elsewhere")) { /* written through one mapping, kept in another one */
    int fd = memfd_create("sparse", 0);
    if (ftruncate(fd, TIB)) exit(2);
    void **w = map(TIB, rw, MAP_SHARED, fd);
    fill(w, TIB);
    map(TIB, PROT_READ, MAP_SHARED, fd);
    munmap(w, TIB);
    close(fd);
  } else if (!strcmp(kind, "reserve")) { /* address space, of which a part is made accessible */
    char *p = map(4 * TIB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    mprotect(p + TIB, 1 << 20, rw);
    fill((void **)(p + TIB), 1 << 20);
  } else if (!strcmp(kind, "sealed")) {
    void **p = map(4 * TIB, rw, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    fill(p, 4 * TIB);
    mprotect(p, 4 * TIB, PROT_NONE);
  } else if (!strcmp(kind, "malloc")) {
    static void **volatile p;
    p = malloc(2 * GIB);
    fill(p, 2 * GIB);
  } else if (!strcmp(kind, "calloc")) {
    static void **volatile p;
    p = calloc(2 * GIB / 8, 8);
    fill(p, 2 * GIB);
  } else if (!strcmp(kind, "brk")) { /* a large block inside the heap itself */
    static void **volatile p;
    mallopt(M_MMAP_MAX, 0);
    p = malloc(2 * GIB);
    fill(p, 2 * GIB);
  } else if (!strcmp(kind, "many")) { /* neighbours that cannot be joined */
    for (int i = 0; i < 30000; i++) {
      void **p = map(4096, i % 2 ? rw : rw | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1);
      if (i % 1000 == 0) fill(p, 4096);
    }
  }
  lost = malloc(999);
  memset(lost, 1, 999);
  lost = NULL;
}
static __attribute__((noinline)) void wipe(void) { volatile char b[8192]; memset((void *)b, 0, sizeof b); }
int main(int argc, char **argv) {
  set_up(argv[1]);
  wipe();
  puts("ready");
  fflush(stdout);
  if (argc > 2) getchar();
  return 0;
}
