// SPDX-License-Identifier: Apache-2.0
// Ends by a segmentation fault: what was recorded until then is all there.
// expect LEAK: leaking lost
// leaks: LEAK
// status: SIGSEGV
// stdout: last words\n
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "program.h"

static int *volatile nowhere;

int main(void) {
  for (int i = 0; i < 300; i++) {
    keep(malloc(90)); // LEAK HERE
    nap_us(1000);
  }
  if (write(1, "last words\n", 11) != 11)
    return 1;
  *nowhere = 1;
  return 0;
}
