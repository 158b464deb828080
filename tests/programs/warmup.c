// SPDX-License-Identifier: Apache-2.0
// Builds its tables early, keeps them, and then works without growing.
// expect TABLE: warm-up
// leaks: none
#include <stdlib.h>
#include <string.h>

#include "program.h"

enum { ROWS = 400 };

static char *rows[ROWS];

static void build_tables(void) {
  for (int i = 0; i < ROWS; i++) {
    rows[i] = malloc(300); // TABLE HERE
    memset(rows[i], i, 300);
    if (i % 8 == 0)
      nap_us(500);
  }
}

int main(void) {
  build_tables();
  for (int i = 0; i < 900; i++) {
    char *work = malloc(128);
    memcpy(work, rows[i % ROWS], 128);
    keep(work);
    nap_us(700);
    free(work);
  }
  return 0;
}
