// SPDX-License-Identifier: Apache-2.0
// Blocks that only a pointer into them keeps: not lost, whatever it means.
// expect GONE: lost
// leaks: GONE
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "program.h"

static char *volatile start, *volatile middle, *volatile gone;
static uint64_t *volatile prefixed;

static void build(void) {
  start = malloc(200);
  middle = (char *)malloc(200) + 77;
  uint64_t *block = malloc(208);
  block[0] = 200; // the length, and then what it is the length of
  prefixed = block + 1;
  gone = malloc(200); // GONE HERE
  memset(gone, 1, 200);
}

int main(void) {
  build();
  gone += 200; // behind the block is not inside it
  return 0;
}
