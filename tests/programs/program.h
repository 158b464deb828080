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

// Until so long after a moment of CLOCK_MONOTONIC; what came late before is made up for.
static inline void wait_until_us(const struct timespec *since, long us) {
  struct timespec until = {since->tv_sec + us / 1000000, since->tv_nsec + us % 1000000 * 1000};
  if (until.tv_nsec >= 1000000000) {
    until.tv_sec++;
    until.tv_nsec -= 1000000000;
  }
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) != 0) {
  }
}

#endif
