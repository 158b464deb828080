// SPDX-License-Identifier: Apache-2.0
// Fills a cache to its bound and then replaces entries: grows, but is no leak.
// expect CACHE: bounded
// leaks: none
// variants: O0 O2 musl aarch64
#include <stdlib.h>
#include <string.h>

#include "program.h"

enum { SLOTS = 200, TURNS = 4000 };

static char *cache[SLOTS];

static void look_up(unsigned key) {
  unsigned slot = key % SLOTS;
  free(cache[slot]);
  cache[slot] = malloc(512); // CACHE HERE
  memset(cache[slot], (int)key, 512);
}

int main(void) {
  unsigned key = 1;
  for (int i = 0; i < TURNS; i++) {
    key = key * 1103515245u + 12345u;
    look_up(key >> 8);
    if (i % 4 == 0)
      nap_us(800);
  }
  return 0;
}
