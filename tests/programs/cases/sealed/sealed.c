// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
/* Memory made read-only or inaccessible after set-up keeps pointers to heap blocks. No leak but one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#define N 40
static void build(void **table, int base) {
  for (int i = 0; i < N; i++) { table[i] = malloc(200 + base); memset(table[i], 1, 200); }
}
static void **a, **b, **c, **d, **e;
__attribute__((noinline)) static void setup(void) {
  a = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); build(a, 0);   /* SEALED READ */
  mprotect(a, 4096, PROT_READ);
  b = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); build(b, 16);  /* SEALED NONE */
  mprotect(b, 4096, PROT_NONE);
  posix_memalign((void **)&c, 4096, 8192); build(c, 32);                                            /* HEAP BLOCK NONE */
  mprotect(c, 4096, PROT_NONE);
  d = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0); build(d, 48);   /* SHARED */
  int fd = memfd_create("t", 0); ftruncate(fd, 4096);
  void **w = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  e = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);                                                /* DUAL MAPPED */
  build(w, 64); munmap(w, 4096); close(fd);
}
int main(void) {
  setup();
  char *p = malloc(999); memset(p, 1, 999); p = NULL;
  usleep(300000);
  puts("sealed done");
  mprotect(c, 4096, PROT_READ | PROT_WRITE);
  if (getenv("KEEP")) mprotect(c, 4096, PROT_NONE);
  return 0;
}
