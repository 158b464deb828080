// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Copying the memory of a process that stands still: only pages that it has, so that the copying
 * neither gives it pages nor waits for somebody who would supply them (userfaultfd, FUSE).
 */
#define _GNU_SOURCE
#include "scan.h"

#include <string.h>
#include <unistd.h>

#define PAGE 4096u
#define STEP (4u << 20) /* bytes copied between two looks at the clock */

EXPORT uint64_t lss_copy(int memory, const struct span *runs, size_t count, uint8_t *to,
                         uint64_t deadline, uint64_t *ret_unread);

/**
 * Copy the runs one behind the other. What cannot be read is zeros, and counted. `deadline` is as
 * for `lss_is_late`.
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
        if (lss_is_late(deadline))
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
