// SPDX-License-Identifier: Apache-2.0
// Lowers RLIMIT_AS and goes on to use most of what it left itself.
// expect LEAK: leaking lost
// leaks: LEAK
// stdout: 150 MiB used\n
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "program.h"

int main(void) {
  struct rlimit limit = {256u << 20, 256u << 20};
  if (setrlimit(RLIMIT_AS, &limit) != 0)
    return 1;
  int mebibytes = 0;
  for (; mebibytes < 150; mebibytes++) {
    char *block = malloc(1 << 20); // LEAK HERE
    if (block == NULL)
      break;
    memset(block, 1, 1 << 20);
    keep(block);
    nap_us(2000);
  }
  printf("%d MiB used\n", mebibytes);
  return 0;
}
