// SPDX-License-Identifier: Apache-2.0
// Closes every descriptor it did not open itself, as daemons do, and goes on.
// expect LEAK: leaking lost
// leaks: LEAK
// stdout: done\n
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "program.h"

int main(void) {
  for (int i = 0; i < 400; i++) {
    if (i == 100)
      closefrom(3);
    if (i == 200)
      for (int fd = 3; fd < 1024; fd++)
        close(fd);
    for (int k = 0; k < 100; k++)
      keep(malloc(40)); // LEAK HERE
    nap_us(800);
  }
  puts("done");
  return 0;
}
