// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Walk the chunks of a glibc heap in a copy of its memory. One size leads to the next, so
 * this cannot be done a column at a time.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))
#define FLAGS 7u
#define PREVIOUS_IN_USE 1u
#define SMALLEST 32u
#define LISTED 1056u /* chunks up to here may wait in a tcache or fastbin, and look used there */

enum stop {
  STOP_MORE = 0,    /* the copy or the room for answers ends here: go on from `at` */
  STOP_END = 1,     /* reached `end` exactly */
  STOP_FENCE = 2,   /* a fence of two small chunks: the regular end of an old heap */
  STOP_CORRUPT = 3, /* a size that no chunk has */
};

static uint64_t word(const uint8_t *memory, uint64_t offset) {
  uint64_t value;
  __builtin_memcpy(&value, memory + offset, sizeof value);
  return value;
}

/* Links of free chunks are mangled (safe-linking, glibc 2.32), or not, or nobody knows. */
enum mangling { PLAIN = 0, MANGLED = 1, UNKNOWN = -1 };

/* Whether the first word of a block at `user` may be the link of a free chunk. */
static bool may_link(uint64_t word, uint64_t user, int mangling, uint64_t low, uint64_t high) {
  uint64_t plain = word ^ user >> 12;
  if (mangling != PLAIN && (!plain || (!(plain & 15) && plain - low < high - low)))
    return true;
  return mangling != MANGLED && word && !(word & 15) && word - low < high - low;
}

/**
 * Walk from `*at` to `end`. `memory` is a copy of `bytes` bytes from address `base`.
 * Of chunks that the following one calls in use, addresses of the user memory go to `starts`,
 * its usable bytes to `sizes`; those of the others are added to `*free_bytes`, and `*chunks`
 * counts all. To `links`, all
 * zeros before, goes the first word of those that may be in a list of free chunks, which lead to
 * addresses from `low` up to `high`. Returns how many are in use; `*at` is where the walk stopped, `*stop` why. With
 * STOP_MORE and nothing done, the copy does not hold the end of the chunk, or its size is too
 * large for `sizes`.
 */
EXPORT size_t lss_walk_chunks(const uint8_t *memory, uint64_t base, uint64_t bytes, uint64_t *at,
                              uint64_t end, uint64_t *starts, uint32_t *sizes, uint64_t *links,
                              size_t room, int mangling, uint64_t low, uint64_t high,
                              uint64_t *free_bytes, uint64_t *chunks, int *stop);
size_t lss_walk_chunks(const uint8_t *memory, uint64_t base, uint64_t bytes, uint64_t *at,
                       uint64_t end, uint64_t *starts, uint32_t *sizes, uint64_t *links,
                       size_t room, int mangling, uint64_t low, uint64_t high,
                       uint64_t *free_bytes, uint64_t *chunks, int *stop) {
  uint64_t chunk = *at;
  size_t n = 0;
  *stop = STOP_MORE;
  for (;;) {
    if (chunk >= end) {
      *stop = chunk == end ? STOP_END : STOP_CORRUPT;
      break;
    }
    if (chunk < base || chunk - base > bytes - 16 || n == room)
      break;
    uint64_t size = word(memory, chunk - base + 8) & ~(uint64_t)FLAGS;
    if (size < SMALLEST) {
      *stop = size == 16 || size == 0 ? STOP_FENCE : STOP_CORRUPT;
      break;
    }
    if (size & 15 || size > end - chunk) {
      *stop = STOP_CORRUPT;
      break;
    }
    uint64_t next = chunk + size, usable = size - 8; /* the last word is the next chunk's first */
    bool in_use = true;
    if (next < end) {
      if (next - base > bytes - 16)
        break; /* its state is in memory that this copy does not hold */
      in_use = word(memory, next - base + 8) & PREVIOUS_IN_USE;
    }
    if (in_use && usable > UINT32_MAX)
      break;
    if (in_use) {
      starts[n] = chunk + 16;
      if (size <= LISTED && chunk + 24 - base <= bytes) {
        uint64_t first = word(memory, chunk + 16 - base);
        if (may_link(first, chunk + 16, mangling, low, high))
          links[n] = first;
      }
      sizes[n++] = (uint32_t)usable;
    } else {
      *free_bytes += usable;
    }
    ++*chunks;
    chunk = next;
  }
  *at = chunk;
  return n;
}
