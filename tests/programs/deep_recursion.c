// SPDX-License-Identifier: Apache-2.0
// Leaks 500 calls deep, deeper than a stack is kept: the innermost line is still right.
// expect LEAK: leaking lost
// leaks: LEAK
#include <stdlib.h>

#include "program.h"

static volatile int depth = 500;

static int __attribute__((noinline)) dive(int left) {
  int result = 1;
  if (left == 0)
    keep(malloc(72)); // LEAK HERE
  else
    result = dive(left - 1) + 1;
  keep(&result); // no tail call
  return result;
}

int main(void) {
  for (int i = 0; i < 400; i++) {
    keep((void *)(long)dive(depth));
    nap_us(1000);
  }
  return 0;
}
