// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * What every file of the agent is written with.
 *
 * Law of the hook: no allocation but raw mmap, no lock the host can hold, no libc,
 * errno kept, bounded stack, async-signal- and fork-safe. Never abort or stop the
 * host: on trouble count it, stop recording, say so in the recording.
 */
#ifndef LEAKSCOPE_BASE_H
#define LEAKSCOPE_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LS_EXPORT __attribute__((visibility("default")))
#define LS_LIKELY(x) __builtin_expect(!!(x), 1)
#define LS_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define LS_HOT static inline __attribute__((always_inline))
#define LS_COLD __attribute__((noinline, cold))

#endif
