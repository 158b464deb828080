// SPDX-License-Identifier: Apache-2.0
// Many short lives and nothing kept.
// leaks: none
// stdout: 400000 lives\n
// variants: O0 O2 musl aarch64
#include <stdio.h>
#include <stdlib.h>

#include "program.h"

int main(void) {
  for (int i = 0; i < 400000; i++) {
    char *brief = malloc((size_t)(i % 1000) + 1);
    brief[0] = 1;
    keep(brief);
    free(brief);
  }
  puts("400000 lives");
  return 0;
}
