// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Which block an address lies in: a bit for each place where a block may begin, and how many
 * begin before each word of bits. That a pointer is one to the start of a block is seen without
 * a look at the list of blocks.
 */
#include "scan.h"

#include <stdlib.h>

#define REGION_GAP (4u << 20) /* a gap in the heap that starts another region */
#define REGION_STEP (64u << 20) /* and so does a block that is so large: its inside has no places */
#define MOST_SHIFT 4u         /* malloc's alignment */

static bool fill_region(struct index *index, struct region *region, uint32_t first, uint32_t last) {
  region->low = index->starts[first];
  region->high = end_of(index, last);
  /* Behind the last start, one more stands for all of the last block. */
  region->count = ((index->starts[last] - region->low) >> index->shift >> 6) + 2;
  region->places = table_new(region->count * sizeof *region->places);
  if (!region->places)
    return false;
  size_t at = 0;
  region->places[0].before = first;
  for (uint32_t block = first; block <= last; block++) {
    uint64_t offset = (index->starts[block] - region->low) >> index->shift;
    while (at < offset >> 6)
      region->places[++at].before = block;
    if (offset & 32)
      region->places[at].high |= 1u << (offset & 31);
    else
      region->places[at].low |= 1u << (offset & 31);
  }
  while (++at < region->count)
    region->places[at].before = last + 1;
  return true;
}

/* `starts`, `sizes`, `wide` and `count` are given. */
bool index_build(struct index *index) {
  size_t room = 0;
  uint64_t all = 1u << MOST_SHIFT;
  for (uint32_t i = 0; i < index->count; i++)
    all |= index->starts[i];
  index->shift = (unsigned)__builtin_ctzll(all);
  for (uint32_t i = 0; i < index->count;) {
    uint32_t last = i;
    while (last + 1 < index->count && index->starts[last + 1] < end_of(index, last) + REGION_GAP &&
           index->starts[last + 1] - index->starts[last] < REGION_STEP)
      last++;
    if (index->region_count == room) {
      room = room ? room * 2 : 64;
      struct region *more = realloc(index->regions, room * sizeof *more);
      if (!more)
        return false;
      index->regions = more;
    }
    if (!fill_region(index, &index->regions[index->region_count++], i, last))
      return false;
    i = last + 1;
  }
  if (index->count) {
    index->low = index->starts[0];
    index->high = index->regions[index->region_count - 1].high;
  }
  return true;
}

void index_free(struct index *index) {
  for (size_t i = 0; i < index->region_count; i++)
    table_free(index->regions[i].places, index->regions[i].count * sizeof(struct places));
  free(index->regions);
}

const struct region *index_search(const struct index *index, uint64_t address) {
  size_t low = 0, high = index->region_count;
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (index->regions[middle].high <= address)
      low = middle + 1;
    else
      high = middle;
  }
  return low < index->region_count && address >= index->regions[low].low ? &index->regions[low]
                                                                        : NULL;
}
