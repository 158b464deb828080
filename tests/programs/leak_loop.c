// SPDX-License-Identifier: Apache-2.0
// Leaks one block a turn: the plainest leak there is.
// expect LEAK: leaking lost (recurrent)
// leaks: LEAK
// stdout: 500 turns\n
// variants: O0 O2 musl aarch64
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "program.h"

static void turn(int number) {
  char *message = malloc(100); // LEAK HERE
  memset(message, number, 100);
  keep(message);
}

int main(void) {
  for (int i = 0; i < 500; i++) {
    turn(i);
    nap_us(1000);
  }
  puts("500 turns");
  return 0;
}
