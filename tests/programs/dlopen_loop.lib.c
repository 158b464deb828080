// SPDX-License-Identifier: Apache-2.0
// The library of dlopen_loop.c.
#include <stdlib.h>

#include "program.h"

static char *state;

__attribute__((constructor)) static void load(void) {
  state = malloc(600); // LEAK HERE
  state[0] = 42;
}

int plugin_answer(void) {
  void *block = malloc(20);
  keep(block);
  free(block);
  return state[0];
}
