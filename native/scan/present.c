// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Copying the memory of a process that stands still: only pages that it has, so that the copying
 * neither gives it pages nor waits for somebody who would supply them (userfaultfd, FUSE).
 */
#define _GNU_SOURCE
#include "scan.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

/* <linux/fs.h> since Linux 6.7 */
struct page_region {
  uint64_t start, end, categories;
};
struct pm_scan_arg {
  uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
  uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define PAGEMAP_SCAN _IOWR('f', 16, struct pm_scan_arg)
#define IS_FILE (1u << 2)
#define IS_PRESENT (1u << 3)
#define IS_SWAPPED (1u << 4)
#define IS_ZERO (1u << 5)

#define PAGE 4096u
#define STEP (4u << 20) /* bytes copied between two looks at the clock */

EXPORT size_t lss_present(int pagemap, const struct span *spans, size_t count, int shared,
                          uint64_t deadline, struct span *out, size_t room);
EXPORT uint64_t lss_copy(int memory, const struct span *runs, size_t count, uint8_t *to,
                         uint64_t deadline, uint64_t *ret_unread);

static uint64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static bool add(struct span *out, size_t room, size_t *count, uint64_t start, uint64_t end) {
  if (*count && out[*count - 1].end == start) {
    out[*count - 1].end = end;
    return true;
  }
  if (*count == room)
    return false;
  out[(*count)++] = (struct span){start, end};
  return true;
}

/* A kernel without PAGEMAP_SCAN: one word a page (Documentation/admin-guide/mm/pagemap.rst). */
static bool read_words(int pagemap, const struct span *span, int shared, uint64_t deadline,
                       struct span *out, size_t room, size_t *count) {
  uint64_t words[8192];
  for (uint64_t page = span->start / PAGE; page < span->end / PAGE;) {
    uint64_t wanted = span->end / PAGE - page;
    if (wanted > 8192)
      wanted = 8192;
    ssize_t got = pread(pagemap, words, wanted * 8, (off_t)(page * 8));
    if (got < 8 || now() > deadline)
      return false;
    for (size_t i = 0; i < (size_t)got / 8; i++) {
      bool is_there = words[i] >> 62, is_file = words[i] >> 61 & 1;
      if (is_there && (shared || !is_file) &&
          !add(out, room, count, (page + i) * PAGE, (page + i + 1) * PAGE))
        return false;
    }
    page += (uint64_t)got / 8;
  }
  return true;
}

/**
 * List the pages of `spans` that the process has, in memory or swapped out: those of its own, or
 * with `shared` also those of files. `deadline` is of the monotonic clock, in ns.
 *
 * Returns how many runs there are, SIZE_MAX when there was no room or no time, or on an error.
 */
size_t lss_present(int pagemap, const struct span *spans, size_t count, int shared,
                   uint64_t deadline, struct span *out, size_t room) {
  struct page_region found[512];
  size_t runs = 0;
  for (size_t i = 0; i < count; i++) {
    uint64_t at = spans[i].start;
    while (at < spans[i].end) {
      struct pm_scan_arg arg = {
          .size = sizeof arg,
          .start = at,
          .end = spans[i].end,
          .vec = (uint64_t)(uintptr_t)found,
          .vec_len = 512,
          .category_inverted = shared ? IS_ZERO : IS_ZERO | IS_FILE,
          .category_mask = shared ? IS_ZERO : IS_ZERO | IS_FILE,
          .category_anyof_mask = IS_PRESENT | IS_SWAPPED,
          .return_mask = IS_PRESENT | IS_SWAPPED,
      };
      int got = ioctl(pagemap, PAGEMAP_SCAN, &arg);
      if (got < 0 && (errno == ENOTTY || errno == EINVAL)) {
        struct span rest = {at, spans[i].end};
        if (!read_words(pagemap, &rest, shared, deadline, out, room, &runs))
          return SIZE_MAX;
        break;
      }
      if (got < 0 || now() > deadline)
        return SIZE_MAX;
      for (int each = 0; each < got; each++)
        if (!add(out, room, &runs, found[each].start, found[each].end))
          return SIZE_MAX;
      if (arg.walk_end <= at)
        break;
      at = arg.walk_end;
    }
  }
  return runs;
}

/**
 * Copy the runs one behind the other. What cannot be read is zeros, and counted.
 *
 * Returns how many bytes are done: fewer than all when the deadline came first.
 */
uint64_t lss_copy(int memory, const struct span *runs, size_t count, uint8_t *to,
                  uint64_t deadline, uint64_t *ret_unread) {
  uint64_t done = 0, looked = 0;
  *ret_unread = 0;
  for (size_t i = 0; i < count; i++) {
    for (uint64_t at = runs[i].start; at < runs[i].end;) {
      uint64_t bytes = runs[i].end - at < STEP ? runs[i].end - at : STEP;
      if (done - looked >= STEP) {
        looked = done;
        if (now() > deadline)
          return done;
      }
      ssize_t got = pread(memory, to + done, bytes, (off_t)at);
      if (got <= 0) {
        got = bytes < PAGE ? (ssize_t)bytes : PAGE;
        memset(to + done, 0, (size_t)got);
        *ret_unread += (uint64_t)got;
      }
      at += (uint64_t)got;
      done += (uint64_t)got;
    }
  }
  return done;
}
