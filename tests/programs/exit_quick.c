// SPDX-License-Identifier: Apache-2.0
// Ends by _exit, past every exit handler: what was recorded until then is all there.
// expect LEAK: leaking lost
// leaks: LEAK
// status: 7
// stdout: last words\n
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "program.h"

int main(void) {
  for (int i = 0; i < 300; i++) {
    keep(malloc(90)); // LEAK HERE
    nap_us(1000);
  }
  if (write(1, "last words\n", 11) != 11)
    return 1;
  _exit(7);
  return 0;
}
