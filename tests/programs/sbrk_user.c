// SPDX-License-Identifier: Apache-2.0
// Takes memory from the kernel by sbrk and never gives it back.
// expect LEAK: leaking lost
// leaks: LEAK
// stdout: moved\n
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include "program.h"

int main(void) {
  char *first = sbrk(0);
  for (int i = 0; i < 200; i++) {
    char *more = sbrk(8192); // LEAK HERE
    if (more == (char *)-1)
      return 1;
    more[0] = 1;
    keep(more);
    nap_us(2000);
  }
  if ((char *)sbrk(0) - first < 200 * 8192)
    return 2;
  if (write(1, "moved\n", 6) != 6)
    return 3;
  return 0;
}
