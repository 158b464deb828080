// SPDX-License-Identifier: Apache-2.0
// Allocates and frees in a few functions, as often as the argument says.
#include <mcheck.h>
#include <stdlib.h>

static void *slots[4096];
static unsigned state = 1;

static unsigned next(void) {
  state = state * 1103515245u + 12345u;
  return state >> 8;
}

#define PLACE(n)                                                 \
  static void __attribute__((noinline)) place##n(void) {         \
    unsigned i = next() % 4096;                                  \
    free(slots[i]);                                              \
    slots[i] = n % 2 ? malloc(16 + next() % 512)                 \
                     : realloc(calloc(1, 8 + next() % 64), 100); \
  }
PLACE(0)
PLACE(1)
PLACE(2)
PLACE(3)

int main(int count, char **words) {
  static void (*const places[])(void) = {place0, place1, place2, place3};
  long rounds = count > 1 ? atol(words[1]) : 1000;
  if (getenv("MALLOC_TRACE"))
    mtrace();
  for (long n = 0; n < rounds; n++)
    places[next() % 4]();
  return 0;
}
