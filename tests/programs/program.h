// SPDX-License-Identifier: Apache-2.0
// What the programs in this folder share: time that passes, and values the compiler cannot drop.
#ifndef PROGRAM_H
#define PROGRAM_H

#include <time.h>

// The compiler must believe that somebody uses this block.
static inline void keep(const void *block) { __asm__ volatile("" : : "r"(block) : "memory"); }

static inline void nap_us(long us) {
  struct timespec left = {us / 1000000, us % 1000000 * 1000};
  while (nanosleep(&left, &left) != 0) {
  }
}

#endif
