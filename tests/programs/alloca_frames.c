// SPDX-License-Identifier: Apache-2.0
// Frames of changing size (alloca, variable-length arrays): the unwinder needs the real frame base.
// expect LEAK: leaking lost
// leaks: LEAK
// variants: O0 O2 aarch64
#include <alloca.h>
#include <stdlib.h>
#include <string.h>

#include "program.h"

static void __attribute__((noinline)) innermost(int number) {
  char *block = malloc(88); // LEAK HERE
  memset(block, number, 88);
  keep(block);
}

static void __attribute__((noinline)) with_alloca(int number) {
  char *room = alloca((size_t)(number * 37 % 4000) + 1);
  memset(room, number, (size_t)(number * 37 % 4000) + 1);
  innermost(number);
  keep(room);
}

static void __attribute__((noinline)) with_array(int number) {
  int room[number % 300 + 1];
  memset(room, number, sizeof room);
  with_alloca(number);
  keep(room);
}

int main(void) {
  for (int i = 0; i < 400; i++) {
    with_array(i);
    nap_us(1000);
  }
  return 0;
}
