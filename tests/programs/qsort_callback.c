// SPDX-License-Identifier: Apache-2.0
// Allocates in a comparison function: the stack goes through libc and back into the program.
// expect LEAK: leaking lost
// leaks: LEAK
#include <stdlib.h>

#include "program.h"

static int comparisons;

static int compare(const void *a, const void *b) {
  int *left = malloc(sizeof *left); // freed below
  *left = *(const int *)a;
  int right = *(const int *)b;
  if (++comparisons % 50 == 0)
    keep(malloc(60)); // LEAK HERE
  int order = (*left > right) - (*left < right);
  keep(left);
  free(left);
  return order;
}

int main(void) {
  for (int i = 0; i < 400; i++) {
    int values[64];
    for (int k = 0; k < 64; k++)
      values[k] = (k * 7919 + i) % 101;
    qsort(values, 64, sizeof *values, compare);
    keep(values);
    nap_us(1000);
  }
  return 0;
}
