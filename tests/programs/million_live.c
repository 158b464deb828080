// SPDX-License-Identifier: Apache-2.0
// Keeps a million blocks alive at once and then frees them all.
// leaks: none
// stdout: a million\n
#include <stdio.h>
#include <stdlib.h>

#include "program.h"

enum { COUNT = 1000000 };

int main(void) {
  void **blocks = malloc(COUNT * sizeof *blocks);
  for (int i = 0; i < COUNT; i++)
    blocks[i] = malloc(24);
  keep(blocks);
  puts("a million");
  for (int i = 0; i < COUNT; i++)
    free(blocks[i]);
  free(blocks);
  return 0;
}
