// SPDX-License-Identifier: Apache-2.0
// errno and the stack protector's word survive every traced call.
// leaks: none
// stdout: kept\n
// build: -fstack-protector-all
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "program.h"

int main(void) {
  for (int i = 0; i < 20000; i++) {
    errno = 1234;
    void *block = malloc((size_t)(i % 3000));
    if (errno != 1234)
      return 1;
    block = realloc(block, (size_t)(i % 5000) + 1);
    if (errno != 1234)
      return 2;
    keep(block);
    free(block);
    if (errno != 1234)
      return 3;
  }
  puts("kept");
  return 0;
}
