// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Find the numbers of one ascending column in another one, by walking both side by side.
 */
#include <stddef.h>
#include <stdint.h>

#include "scan.h"

/**
 * Write to `places[i]` where `wanted[i]` stands in `among`, -1 when it does not. Both columns
 * ascend; of equal numbers in `among` the first one counts.
 */
EXPORT void lss_join(const uint64_t *wanted, size_t wanted_count, const uint64_t *among,
                     size_t count, int64_t *places);
void lss_join(const uint64_t *wanted, size_t wanted_count, const uint64_t *among, size_t count,
              int64_t *places) {
  size_t at = 0;
  for (size_t i = 0; i < wanted_count; i++) {
    while (at < count && among[at] < wanted[i])
      at++;
    places[i] = at < count && among[at] == wanted[i] ? (int64_t)at : -1;
  }
}
