// SPDX-License-Identifier: Apache-2.0
// Frees everything: nothing to report.
// leaks: none
// status: 3
// stdout: clean\n
// variants: O0 O2 musl aarch64
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "program.h"

int main(void) {
  char *blocks[100];
  for (int i = 0; i < 100; i++) {
    blocks[i] = calloc(1, (size_t)i + 1);
    keep(blocks[i]);
    nap_us(1000);
  }
  for (int i = 0; i < 100; i++)
    free(blocks[i]);
  if (write(1, "clean\n", 6) != 6)
    return 1;
  return 3; // the program's own exit status stays visible
}
