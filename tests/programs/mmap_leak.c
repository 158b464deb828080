// SPDX-License-Identifier: Apache-2.0
// Mappings made by the program itself: lost, partly unmapped, grown by mremap, replaced in place.
// expect LEAK: leaking lost
// leaks: LEAK
// stdout: mapped\n
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/mman.h>

#include "program.h"

enum { PAGE = 4096 };

static char *map(size_t pages) {
  const int access = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS;
  char *start = mmap(NULL, pages * PAGE, access, flags, -1, 0); // LEAK HERE
  if (start == MAP_FAILED)
    return NULL;
  start[0] = 1;
  return start;
}

static char *map_fine(size_t pages) {
  return mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

int main(void) {
  for (int i = 0; i < 300; i++) {
    char *lost = map(16);
    if (lost == NULL)
      return 1;
    keep(lost);
    munmap(lost + 4 * PAGE, 4 * PAGE); // a hole: 12 pages stay

    char *fine = map_fine(8);
    munmap(fine, 2 * PAGE); // from the front
    munmap(fine + 6 * PAGE, 2 * PAGE); // from the back
    fine = mremap(fine + 2 * PAGE, 4 * PAGE, 32 * PAGE, MREMAP_MAYMOVE);
    if (fine == MAP_FAILED)
      return 2;
    mmap(fine + PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    munmap(fine, 32 * PAGE);
    nap_us(1000);
  }
  puts("mapped");
  return 0;
}
