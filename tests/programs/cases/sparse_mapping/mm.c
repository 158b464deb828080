// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
/* mappings: arg reserve: address space only (PROT_NONE); sparse: 64 GiB writable, 3 pages touched, holding the only pointers; leak: real */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
int main(int argc, char **argv) {
  const char *m = argv[1];
  if (!strcmp(m, "reserve")) {
    for (int i = 0; i < 40; i++) { void *p = mmap(NULL, 1ul << 30, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0); (void)p; usleep(10000); }
  } else if (!strcmp(m, "sparse")) {
    size_t gib = argc > 2 ? atol(argv[2]) : 64;
    void **p = mmap(NULL, gib << 30, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) { perror("mmap"); return 2; }
    size_t words = (gib << 30) / 8;
    for (int i = 0; i < 3; i++) { void **at = &p[words / 3 * i]; for (int k = 0; k < 10; k++) { at[k] = malloc(64); memset(at[k], 1, 64); } }
    usleep(100000);
  } else if (!strcmp(m, "leak")) {
    for (int i = 0; i < 40; i++) { char *p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); memset(p, 1, 1 << 20); usleep(10000); }
  } else if (!strcmp(m, "partial")) {   /* over-map, trim to align: nothing leaks in sum */
    for (int i = 0; i < 40; i++) { char *p = mmap(NULL, 2 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      munmap(p, 1 << 19); munmap(p + (3 << 19), 1 << 19); p[1 << 19] = 1; munmap(p + (1 << 19), 1 << 20); usleep(10000); }
  }
  printf("%s done\n", m);
  return 0;
}
