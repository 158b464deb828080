// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Which pages of a process there are, in memory or in swap. To read any other one would make the
 * kernel set up page tables for it, in the process, and find zeros.
 */
#define _GNU_SOURCE
#include "scan.h"

#include <errno.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

/* linux/fs.h since 6.7; older headers do not have it. */
struct scan_argument {
  uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
  uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
struct scan_region {
  uint64_t start, end, categories;
};
#define SCAN_PAGES _IOWR('f', 16, struct scan_argument)
#define IS_FILE 4u
#define IS_PRESENT 8u
#define IS_SWAPPED 16u
#define IS_ZERO 32u   /* the page of zeros that is everybody's */
#define IS_GUARD 256u /* MADV_GUARD_INSTALL; Linux 6.15 */

#define PAGE 4096u
#define REGIONS 1024u
#define ENTRIES (64u << 10) /* of pagemap, read at a time */
#define ENTRY_PRESENT (1ull << 63)
#define ENTRY_SWAPPED (1ull << 62)
#define ENTRY_FILE (1ull << 61)

/* What is left to look at: the number of the range, and from which address on. */
struct cursor {
  uint64_t range, address;
};

static size_t add(struct span *out, size_t n, uint64_t start, uint64_t end) {
  if (n && out[n - 1].end == start) {
    out[n - 1].end = end;
    return n;
  }
  out[n] = (struct span){start, end};
  return n + 1;
}

/* One ioctl; returns how many spans there are now, -1 with errno. `*at` is how far it came. */
static long by_scan(int pagemap, uint64_t *at, uint64_t end, bool without_files, struct span *out,
                    size_t n, size_t room) {
  static uint64_t never = IS_ZERO | IS_GUARD;
  uint64_t unwanted = never | (without_files ? IS_FILE : 0);
  struct scan_region regions[REGIONS];
  struct scan_argument argument = {
      .size = sizeof argument,
      .start = *at,
      .end = end,
      .vec = (uintptr_t)regions,
      .vec_len = room - n < REGIONS ? room - n : REGIONS,
      .category_inverted = unwanted,
      .category_mask = unwanted,
      .category_anyof_mask = IS_PRESENT | IS_SWAPPED,
      .return_mask = IS_PRESENT,
  };
  long found = ioctl(pagemap, SCAN_PAGES, &argument);
  if (found < 0 && errno == EINVAL && never & IS_GUARD) {
    never = IS_ZERO; /* a kernel that does not know the other one */
    return by_scan(pagemap, at, end, without_files, out, n, room);
  }
  if (found < 0)
    return -1;
  for (long i = 0; i < found; i++)
    n = add(out, n, regions[i].start, regions[i].end);
  *at = argument.walk_end > *at ? argument.walk_end : end;
  return (long)n;
}

/* The same for kernels without that ioctl: eight bytes of pagemap for each page, there or not. */
static long by_entries(int pagemap, uint64_t *at, uint64_t end, bool without_files,
                       struct span *out, size_t n, size_t room) {
  static __thread uint64_t entries[ENTRIES];
  uint64_t pages = (end - *at) / PAGE, first = *at / PAGE;
  if (pages > ENTRIES)
    pages = ENTRIES;
  ssize_t got = pread(pagemap, entries, pages * 8, (off_t)(first * 8));
  if (got < 8)
    return -1;
  size_t count = (size_t)got / 8, i = 0;
  for (; i < count && n < room; i++)
    if (entries[i] & (ENTRY_PRESENT | ENTRY_SWAPPED) && !(without_files && entries[i] & ENTRY_FILE))
      n = add(out, n, (first + i) * PAGE, (first + i + 1) * PAGE);
  *at = (first + i) * PAGE;
  return (long)n;
}

bool lss_is_late(uint64_t deadline) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec > deadline;
}

EXPORT long lss_pages(int pagemap, const struct span *ranges, size_t count, int without_files,
                      uint64_t deadline, struct span *out, size_t room, struct cursor *cursor);
/**
 * Write the parts of `ranges`, ascending and page-aligned, that are in memory or in swap, to
 * `out`; `without_files` leaves out those that are the same as in a file. `pagemap` is that file
 * of a process, `deadline` is as for `lss_is_late`.
 *
 * Returns how many, or -1 when the kernel does not tell. Goes on from `cursor`, zeros at first,
 * and is through when its `range` is `count`; otherwise `out` was full, or it was too late.
 */
long lss_pages(int pagemap, const struct span *ranges, size_t count, int without_files,
               uint64_t deadline, struct span *out, size_t room, struct cursor *cursor) {
  size_t n = 0;
  bool slow = false;
  while (cursor->range < count && n < room && !lss_is_cancelled()) {
    const struct span *range = &ranges[cursor->range];
    uint64_t at = cursor->address > range->start ? cursor->address : range->start;
    if (at >= range->end) {
      cursor->range++;
      cursor->address = 0;
      continue;
    }
    long now = slow ? -1 : by_scan(pagemap, &at, range->end, without_files, out, n, room);
    if (now < 0) {
      slow = true;
      now = by_entries(pagemap, &at, range->end, without_files, out, n, room);
    }
    if (now < 0)
      return -1;
    n = (size_t)now;
    cursor->address = at;
    if (lss_is_late(deadline))
      break;
  }
  return (long)n;
}
