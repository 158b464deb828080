// SPDX-License-Identifier: Apache-2.0
// Keeps a million blocks alive at once for a while and then frees them all.
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
  nap_us(1500000); // without it the program would do nothing but grow, and end
  for (int i = 0; i < COUNT; i++)
    free(blocks[i]);
  free(blocks);
  return 0;
}
