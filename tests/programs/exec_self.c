// SPDX-License-Identifier: Apache-2.0
// Replaces itself by exec under the same pid; the second image leaks.
// expect LEAK: leaking lost
// leaks: LEAK
// processes: 2
#include <stdlib.h>
#include <unistd.h>

#include "program.h"

int main(int argc, char **argv) {
  if (argc == 1) {
    keep(malloc(123456));
    execl("/proc/self/exe", argv[0], "again", (char *)NULL);
    return 9;
  }
  for (int i = 0; i < 400; i++) {
    keep(malloc(75)); // LEAK HERE
    nap_us(1000);
  }
  return 0;
}
