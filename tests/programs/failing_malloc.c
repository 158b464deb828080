// SPDX-License-Identifier: Apache-2.0
// Allocations that fail, for being impossible and for RLIMIT_AS, fail as without leakscope.
// leaks: none
// stdout: failed as they should\n
// variants: O0 O2 musl
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "program.h"

static volatile size_t huge = SIZE_MAX;

static int fails(void *block) {
  int failed = block == NULL && errno == ENOMEM;
  free(block);
  errno = 0;
  return failed;
}

int main(void) {
  errno = 0;
  if (!fails(malloc(huge)) || !fails(calloc(huge, 2)) || !fails(reallocarray(NULL, huge, 3)) ||
      !fails(malloc(huge / 2 - 100)))
    return 1;
  void *block = NULL;
  if (posix_memalign(&block, 64, huge - 200) != ENOMEM || posix_memalign(&block, 3, 8) != EINVAL)
    return 2;
  struct rlimit limit = {300u << 20, 300u << 20};
  if (setrlimit(RLIMIT_AS, &limit) != 0)
    return 3;
  errno = 0;
  if (!fails(malloc((size_t)400 << 20)))
    return 4;
  for (int i = 0; i < 20000; i++) { // small ones still work, under the limit
    void *small = malloc(2000);
    if (small == NULL)
      return 5;
    keep(small);
    free(small);
  }
  puts("failed as they should");
  return 0;
}
