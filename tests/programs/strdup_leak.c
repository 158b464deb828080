// SPDX-License-Identifier: Apache-2.0
// libc allocates on the program's behalf; the line to look at is the caller of the libc function.
// expect STRDUP: leaking lost
// expect STRNDUP: leaking lost
// expect ASPRINTF: leaking lost
// leaks: STRDUP STRNDUP ASPRINTF
// variants: O0 O2 aarch64
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "program.h"

static const char *volatile text = "a text that is long enough to be no accident";

int main(void) {
  for (int i = 0; i < 400; i++) {
    char *copy = strdup(text); // STRDUP HERE
    keep(copy);
    copy = strndup(text, 20); // STRNDUP HERE
    keep(copy);
    if (asprintf(&copy, "%s, turn %d", text, i) < 0) // ASPRINTF HERE
      return 1;
    keep(copy);
    nap_us(1000);
  }
  return 0;
}
