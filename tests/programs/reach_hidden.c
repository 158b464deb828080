// SPDX-License-Identifier: Apache-2.0
// A pointer that only arithmetic brings back is no pointer to whoever looks at memory.
// expect HIDDEN: lost
// leaks: HIDDEN
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "program.h"

static volatile uintptr_t hidden;

static void hide(void) {
  char *block = malloc(333); // HIDDEN HERE
  memset(block, 1, 333);
  hidden = ~(uintptr_t)block;
}

int main(void) {
  hide();
  return 0;
}
