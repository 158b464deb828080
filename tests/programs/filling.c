// SPDX-License-Identifier: Apache-2.0
// Interns names of a limited set: grows ever more slowly towards a bound it has not reached.
// expect TABLE: filling
// leaks: none
#include <stdlib.h>
#include <string.h>

#include "program.h"

enum { NAMES = 2000, TURNS = 3200 };

static char *names[NAMES];

static const char *intern(unsigned name) {
  if (names[name] == NULL) {
    names[name] = malloc(64); // TABLE HERE
    memset(names[name], 'n', 64);
  }
  return names[name];
}

int main(void) {
  unsigned seed = 1;
  struct timespec began;
  clock_gettime(CLOCK_MONOTONIC, &began);
  for (int i = 0; i < TURNS; i++) {
    seed = seed * 1103515245u + 12345u;
    keep(intern((seed >> 8) % NAMES));
    if (i % 4 == 0)
      wait_until_us(&began, 250L * i); // a busy machine does not change the course
  }
  return 0;
}
