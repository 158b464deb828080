// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Follow lists of free blocks. Each link must be known to find the next one, so this is a chain of
 * cache misses at best; the links that the walk of the heap kept spare a system call for each.
 */
#include "scan.h"

#include <stdlib.h>

enum leads_to {
  TO_BLOCK = 0, /* a link is the address of the next block, mangled or not */
  TO_CHUNK = 1, /* of its chunk, 16 bytes before it */
  TO_EITHER = 2 /* of one or the other, and mangled */
};

#define FEW 4096u /* lookups that are cheaper by halving than with an index */

/* Reads a word of the process, 0 when that cannot be done. */
typedef uint64_t (*reader)(uint64_t address);

struct lists {
  struct index index;
  bool indexed;
  size_t steps;
  const uint64_t *links;
  reader read;
};

static uint32_t block_of(struct lists *lists, uint64_t address) {
  const struct index *index = &lists->index;
  if (!index->count || address < index->starts[0] || address > index->starts[index->count - 1])
    return NO_BLOCK;
  if (++lists->steps == FEW)
    lists->indexed = index_build(&lists->index);
  if (lists->indexed) {
    const struct region *region = index_search(index, address);
    bool exact;
    if (!region)
      return NO_BLOCK;
    uint32_t block = block_before(index, region, places_of(index, region, address), address, &exact);
    return exact ? block : NO_BLOCK;
  }
  size_t low = 0, high = index->count;
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (index->starts[middle] < address)
      low = middle + 1;
    else
      high = middle;
  }
  return low < index->count && index->starts[low] == address ? (uint32_t)low : NO_BLOCK;
}

static uint32_t next_of(struct lists *lists, uint32_t block, int leads_to) {
  uint64_t user = lists->index.starts[block];
  uint64_t word = lists->links[block] ? lists->links[block] : lists->read(user);
  uint64_t plain = word ^ user >> 12;
  uint32_t next = NO_BLOCK;
  if (leads_to != TO_CHUNK)
    next = block_of(lists, plain);
  if (next == NO_BLOCK && leads_to != TO_BLOCK)
    next = block_of(lists, plain + 16);
  if (next == NO_BLOCK && leads_to != TO_EITHER)
    next = block_of(lists, leads_to == TO_CHUNK ? word + 16 : word);
  return next;
}

/**
 * Set `found[i]` for each block that the lists lead to which begin at the addresses `heads`; a
 * list ends at a block that is set already. `links` has first words of blocks, zeros where they
 * have to be read. Returns 0, or -1 when that was cancelled.
 */
EXPORT int lss_follow_lists(const uint64_t *starts, const void *sizes, int wide, size_t count,
                            const uint64_t *links, const uint64_t *heads, size_t head_count,
                            int leads_to, uint8_t *found, reader read);
int lss_follow_lists(const uint64_t *starts, const void *sizes, int wide, size_t count,
                     const uint64_t *links, const uint64_t *heads, size_t head_count, int leads_to,
                     uint8_t *found, reader read) {
  struct lists lists = {.links = links, .read = read};
  lists.index = (struct index){
      .starts = starts, .sizes = sizes, .wide = wide, .count = (uint32_t)count};
  int result = 0;
  for (size_t i = 0; i < head_count && !result; i++) {
    uint32_t block = block_of(&lists, heads[i]);
    while (block != NO_BLOCK && !found[block]) {
      found[block] = 1;
      block = next_of(&lists, block, leads_to);
      if (!(lists.steps & 0xfff) && lss_is_cancelled()) {
        result = -1;
        break;
      }
    }
  }
  index_free(&lists.index);
  return result;
}
