// SPDX-License-Identifier: Apache-2.0
// Allocates from as many call stacks as its argument says, all the time: each round, every stack
// keeps a block, and lets go of its oldest one when it has four. Writes each round's number.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { HELD = 4 };

static void *(*held)[HELD];
static volatile uint32_t depth_seen;

static void *left(uint32_t bits, int depth, size_t size);
static void *right(uint32_t bits, int depth, size_t size);

static inline __attribute__((always_inline)) void *deeper(uint32_t bits, int depth, size_t size) {
  if (depth == 0)
    return malloc(size);
  void *block = bits & 1 ? right(bits >> 1, depth - 1, size) : left(bits >> 1, depth - 1, size);
  depth_seen++; // no tail call: each has its frame
  return block;
}

__attribute__((noinline)) static void *left(uint32_t bits, int depth, size_t size) {
  return deeper(bits, depth, size);
}

__attribute__((noinline)) static void *right(uint32_t bits, int depth, size_t size) {
  return deeper(bits, depth, size);
}

int main(int argc, char **argv) {
  uint32_t stacks = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 10000;
  int depth = 1;
  while (1U << depth < stacks)
    depth++;
  held = calloc(stacks, sizeof *held);
  for (unsigned long round = 0;; round++) {
    for (uint32_t stack = 0; stack < stacks; stack++) {
      void **slot = &held[stack][round % HELD];
      free(*slot);
      *slot = left(stack, depth, 32 + (stack + round) % 500);
    }
    printf("%lu\n", round);
    fflush(stdout);
    nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
  }
}
