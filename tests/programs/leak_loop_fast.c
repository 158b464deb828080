// SPDX-License-Identifier: Apache-2.0
// The same leak in a program that is over in milliseconds.
// expect LEAK: leaking lost
// leaks: LEAK
// variants: O0 O2 musl
#include <stdlib.h>

#include "program.h"

int main(void) {
  for (int i = 0; i < 20000; i++) {
    keep(malloc(48)); // LEAK HERE
    void *fine = malloc(64);
    keep(fine);
    free(fine);
  }
  return 0;
}
