// SPDX-License-Identifier: Apache-2.0
// Every way a realloc can go: in place, moved, from nothing, to nothing, failed. Nothing leaks.
// leaks: none
// stdout: ok\n
// variants: O0 O2 musl aarch64
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "program.h"

static volatile size_t impossible = PTRDIFF_MAX;

static int one_round(void) {
  char *block = realloc(NULL, 32);
  if (block == NULL)
    return 1;
  memset(block, 7, 32);
  block = realloc(block, 24);          // shrinks in place
  char *barrier = malloc(16);          // stands in the way of growing in place
  block = realloc(block, 100000);      // moves
  block = realloc(block, 600000);      // a mapping of its own
  block = realloc(block, 900000);      // mremap
  if (block == NULL || block[23] != 7)
    return 2;
  errno = 0;
  if (realloc(block, impossible) != NULL || errno != ENOMEM)
    return 3;
  if (block[23] != 7) // a failed realloc keeps the block
    return 4;
  block = realloc(block, 10);
  free(barrier);
  keep(block);
  void *ended = realloc(block, 0); // frees under glibc; musl returns a block
  free(ended);
  return 0;
}

int main(void) {
  for (int i = 0; i < 200; i++) {
    int wrong = one_round();
    if (wrong != 0) {
      printf("wrong %d\n", wrong);
      return wrong;
    }
    nap_us(500);
  }
  puts("ok");
  return 0;
}
