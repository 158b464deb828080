// SPDX-License-Identifier: Apache-2.0
// Leaves deep calls by longjmp, a hundred thousand times, and frees what it allocated there.
// leaks: none
// stdout: 100000 jumps\n
// variants: O0 O2 musl
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include "program.h"

static jmp_buf out;
static void *block;

static void __attribute__((noinline)) deep(int left) {
  if (left > 0) {
    deep(left - 1);
    keep(&left);
    return;
  }
  block = malloc(50);
  longjmp(out, 1);
}

int main(void) {
  volatile int jumps = 0;
  while (jumps < 100000) {
    if (setjmp(out) == 0)
      deep(jumps % 20);
    free(block);
    jumps = jumps + 1;
  }
  printf("%d jumps\n", jumps);
  return 0;
}
