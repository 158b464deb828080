// SPDX-License-Identifier: Apache-2.0
// Each block is born by malloc and grown by realloc, and then lost: the realloc owns it.
// expect GROWN: leaking lost
// leaks: GROWN
#include <stdlib.h>

#include "program.h"

int main(void) {
  for (int i = 0; i < 400; i++) {
    char *block = malloc(24);
    keep(block);
    block = realloc(block, 4000); // GROWN HERE
    keep(block);
    nap_us(1000);
  }
  return 0;
}
