// SPDX-License-Identifier: Apache-2.0
// May open no file any more, and none may be written to: leakscope goes on all the same.
// expect LEAK: leaking lost
// leaks: LEAK
// stdout: done\n
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "program.h"

int main(void) {
  struct rlimit none = {3, 3};
  if (setrlimit(RLIMIT_NOFILE, &none) != 0)
    return 1;
  struct rlimit empty = {0, 0};
  if (setrlimit(RLIMIT_FSIZE, &empty) != 0)
    return 2;
  for (int i = 0; i < 300; i++) {
    for (int k = 0; k < 100; k++)
      keep(malloc(40)); // LEAK HERE
    nap_us(1000);
  }
  fputs("done\n", stdout);
  return 0;
}
