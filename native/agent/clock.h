// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Time in ticks of 2^20 ns since the recording began, from the kernel's coarse clock:
 * 2.6 ns through the vDSO where the cycle counter took 8.5, at a resolution of one
 * scheduler tick (1 to 10 ms).
 */
#ifndef LEAKSCOPE_CLOCK_H
#define LEAKSCOPE_CLOCK_H

#include "process.h"
#include "sys.h"

#pragma GCC visibility push(hidden)

#define LS_TICK_SHIFT 20u
enum {
  LS_CLOCK_REALTIME = 0,
  LS_CLOCK_MONOTONIC = 1,
  LS_CLOCK_THREAD_CPUTIME = 3,
  LS_CLOCK_MONOTONIC_COARSE = 6,
};

/* The vDSO's clock_gettime, or the system call. */
extern int (*ls_clock_function)(int clock, struct ls_timespec *ret);

void ls_clock_init(void);
/* Relate ticks to the clocks; the last pair also tells how long the recording lasted. */
void ls_clock_pair(struct lsr_header *header);

static inline uint64_t ls_clock_ns(int clock) {
  struct ls_timespec time;
  ls_clock_function(clock, &time);
  return (uint64_t)time.seconds * 1000000000u + (uint64_t)time.nanoseconds;
}

static inline uint32_t ls_tick(void) {
  uint64_t ticks =
      (ls_clock_ns(LS_CLOCK_MONOTONIC_COARSE) - ls_live->clock_start) >> LS_TICK_SHIFT;
  return ticks < UINT32_MAX ? (uint32_t)ticks : UINT32_MAX;
}

#pragma GCC visibility pop

#endif
