// SPDX-License-Identifier: Apache-2.0
// Loses one table at start, then works cleanly: lost for good, but it does not grow.
// expect ONCE: lost (one-off)
// leaks: ONCE
// variants: O0 O2 musl
#include <stdlib.h>
#include <string.h>

#include "program.h"

static void set_up(void) {
  char *table = malloc(4000); // ONCE HERE
  memset(table, 1, 4000);
  keep(table);
}

int main(void) {
  set_up();
  for (int i = 0; i < 500; i++) {
    char *work = malloc(256);
    memset(work, i, 256);
    keep(work);
    nap_us(1000);
    free(work);
  }
  return 0;
}
