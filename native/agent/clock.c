// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Finding the fast clock, and tying ticks to wall time.
 */
#include "clock.h"

#include "resolve.h"

static int by_system_call(int clock, struct ls_timespec *ret) {
  static struct ls_timespec last; /* time stands still where it may not be asked for */
  if (ls_clock_gettime(clock, ret) < 0) {
    *ret = last;
    return 0;
  }
  if (clock == LS_CLOCK_MONOTONIC_COARSE || clock == LS_CLOCK_MONOTONIC)
    last = *ret;
  return 0;
}

int (*ls_clock_function)(int, struct ls_timespec *) = by_system_call;

void ls_clock_init(void) {
#ifdef __aarch64__
  void *found = ls_vdso_symbol("__kernel_clock_gettime");
#else
  void *found = ls_vdso_symbol("__vdso_clock_gettime");
#endif
  if (found)
    ls_clock_function = (int (*)(int, struct ls_timespec *))found;
}

void ls_clock_pair(struct lsr_header *header) {
  uint64_t coarse = ls_clock_ns(LS_CLOCK_MONOTONIC_COARSE);
  if (!header->mono_start_ns) {
    header->real_start_ns = ls_clock_ns(LS_CLOCK_REALTIME);
    header->counter_start = coarse;
    header->mono_start_ns = coarse;
  }
  header->counter_last = coarse;
  header->mono_last_ns = ls_clock_ns(ls_is_sealed() ? LS_CLOCK_MONOTONIC_COARSE : LS_CLOCK_MONOTONIC);
  if (header->mono_last_ns < coarse)
    header->mono_last_ns = coarse;
}
