// SPDX-License-Identifier: Apache-2.0
/* Takes away what it finds of a kind in its address space, while four threads allocate:
 * takeaway HOW file|PRIVATE_OFFSET. With a number the ranges are those that the mapping of a file
 * NAME.live lists there: a count and, 8 bytes on, pairs of addresses. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static volatile int stop;
static void *allocate(void *seed) {
  unsigned x = (unsigned)(long)seed;
  char *kept[64] = {0};
  while (!stop) {
    x = x * 1664525 + 1013904223;
    free(kept[x >> 26]);
    kept[x >> 26] = malloc(x >> 20 & 1023);
  }
  for (int i = 0; i < 64; i++)
    free(kept[i]);
  return NULL;
}

static void take(const char *how, uintptr_t at, size_t bytes) {
  void *start = (void *)at;
  if (!strcmp(how, "unmap"))
    munmap(start, bytes);
  else if (!strcmp(how, "protect"))
    mprotect(start, bytes, PROT_NONE);
  else if (!strcmp(how, "replace"))
    mmap(start, bytes, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  else if (!strcmp(how, "move"))
    mremap(start, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, mmap(NULL, bytes, 0, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  else if (!strcmp(how, "discard"))
    madvise(start, bytes, MADV_DONTNEED);
  else if (!strcmp(how, "childless"))
    madvise(start, bytes, MADV_DONTFORK);
  else if (!strcmp(how, "call"))
    syscall(SYS_munmap, start, bytes);
}

int main(int argc, char **argv) {
  pthread_t threads[4];
  for (long i = 0; i < 4; i++)
    pthread_create(&threads[i], NULL, allocate, (void *)i);
  usleep(20000);
  static uintptr_t start[1000], end[1000];
  uintptr_t header = 0;
  int count = 0;
  char line[600];
  FILE *maps = fopen("/proc/self/maps", "r");
  while (fgets(line, sizeof line, maps) && count < 1000) {
    if (!strstr(line, ".live\n"))
      continue;
    unsigned long offset;
    sscanf(line, "%lx-%lx %*s %lx", &start[count], &end[count], &offset);
    if (!offset)
      header = start[count];
    count++;
  }
  fclose(maps);
  if (count && strcmp(argv[2], "file")) {
    uintptr_t at = header + atol(argv[2]);
    count = *(uint32_t *)at;
    memcpy(line, (void *)(at + 8), 0);
    uintptr_t pairs[128];
    memcpy(pairs, (void *)(at + 8), sizeof pairs);
    for (int i = 0; i < count && i < 64; i++) {
      start[i] = pairs[2 * i];
      end[i] = pairs[2 * i + 1];
    }
  }
  for (int i = 0; i < count; i++)
    take(argv[1], start[i], (end[i] - start[i] + 4095) & ~4095ul);
  usleep(20000);
  for (int i = 0; i < 1000; i++)
    free(malloc(i));
  pid_t child = fork();
  if (!child) {
    free(malloc(10));
    _exit(0);
  }
  stop = 1;
  for (int i = 0; i < 4; i++)
    pthread_join(threads[i], NULL);
  puts("alive");
  return 0;
}
