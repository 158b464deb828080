// SPDX-License-Identifier: Apache-2.0
// Leaks through every plain allocation function, each on its own line.
// expect MALLOC: leaking lost
// expect CALLOC: leaking lost
// expect REALLOC: leaking lost
// expect ARRAY: leaking lost
// leaks: MALLOC CALLOC REALLOC ARRAY
#define _GNU_SOURCE
#include <stdlib.h>

#include "program.h"

int main(void) {
  for (int i = 0; i < 400; i++) {
    keep(malloc(100));             // MALLOC HERE
    keep(calloc(10, 10));          // CALLOC HERE
    keep(realloc(NULL, 120));      // REALLOC HERE
    keep(reallocarray(NULL, 7, 9)); // ARRAY HERE
    nap_us(1000);
  }
  return 0;
}
