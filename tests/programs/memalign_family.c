// SPDX-License-Identifier: Apache-2.0
// Leaks through every aligned allocation function, and gets the alignment it asked for.
// expect POSIX: leaking lost
// expect ALIGNED: leaking lost
// expect MEMALIGN: leaking lost
// expect VALLOC: leaking lost
// expect PVALLOC: leaking lost
// leaks: POSIX ALIGNED MEMALIGN VALLOC PVALLOC
// stdout: aligned\n
#define _GNU_SOURCE
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "program.h"

static int wrong;

static void check(const void *block, uintptr_t alignment) {
  if (block == NULL || (uintptr_t)block % alignment != 0)
    wrong = 1;
  keep(block);
}

int main(void) {
  for (int i = 0; i < 300; i++) {
    void *block = NULL;
    if (posix_memalign(&block, 256, 100) != 0) // POSIX HERE
      return 1;
    check(block, 256);
    check(aligned_alloc(64, 128), 64); // ALIGNED HERE
    check(memalign(1024, 50), 1024);   // MEMALIGN HERE
    check(valloc(10), 4096);           // VALLOC HERE
    check(pvalloc(10), 4096);          // PVALLOC HERE
    block = aligned_alloc(128, 256);
    check(block, 128);
    free(block);
    nap_us(1000);
  }
  puts(wrong ? "wrong" : "aligned");
  return wrong;
}
