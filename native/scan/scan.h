// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * What the parts of the scanner share: the memory that is scanned, and the index that finds the
 * block of an address.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))
#define NO_BLOCK UINT32_MAX

struct span {
  uint64_t start, end;
};

/* Memory we hold ourselves: a core file. Ascending, not overlapping. */
struct segment {
  uint64_t start, end;
  const uint8_t *bytes;
};

/* ---- image.c: the memory that is scanned ---- */

struct image {
  int memory; /* of a process, -1: `segments` */
  const struct segment *segments;
  size_t segment_count;
  /* Of a process: where there are pages, ascending; NULL: not known. Nothing else is touched,
   * and reads as zeros. */
  const struct span *resident;
  size_t resident_count;
};

/* Read up to `bytes`; returns how many from the start could be read. */
uint64_t image_read(const struct image *image, uint64_t address, void *out, uint64_t bytes);
bool image_word(const struct image *image, uint64_t address, uint64_t *ret);
/* Read all of it, with zeros for pages that cannot be read; returns how many bytes those are.
 * Pages that are not there are no such ones. */
uint64_t image_fill(const struct image *image, uint64_t address, uint8_t *out, uint64_t bytes);
/* The next part of [*start, end) that there is; false: no more. */
bool image_next(const struct image *image, uint64_t *start, uint64_t end, uint64_t *ret_end);
/* How many bytes of [start, end) there are. */
uint64_t image_resident(const struct image *image, uint64_t start, uint64_t end);

/* Zeroed memory of the caller, in huge pages where there are some; NULL: no memory. */
void *table_new(size_t bytes);
void table_free(void *table, size_t bytes);

/* ---- cancel.c ---- */

/* Whether somebody does not want the answer any more: what is under way ends soon. */
bool lss_is_cancelled(void);

/* ---- pages.c ---- */

/* Whether the monotonic clock has passed `deadline`, in ns. */
bool lss_is_late(uint64_t deadline);

/* ---- index.c: the block of an address ---- */

/* 64 places where a block may begin. */
struct places {
  uint32_t low, high; /* a bit where one does */
  uint32_t before;    /* blocks that begin at lower addresses */
};

/* A part of the heap without large gaps. */
struct region {
  uint64_t low, high; /* addresses */
  struct places *places;
  size_t count;
};

struct index {
  const uint64_t *starts; /* ascending */
  const void *sizes;
  bool wide; /* sizes are of 64 bits, not 32 */
  uint32_t count;
  unsigned shift;     /* log2 of what all starts are a multiple of */
  uint64_t low, high; /* of all blocks */
  struct region *regions;
  size_t region_count;
};

bool index_build(struct index *index);
void index_free(struct index *index);
const struct region *index_search(const struct index *index, uint64_t address);

static inline uint64_t size_of(const struct index *index, uint32_t block) {
  uint64_t size = index->wide ? ((const uint64_t *)index->sizes)[block]
                              : ((const uint32_t *)index->sizes)[block];
  return size ? size : 1; /* a block of no bytes has an address all the same */
}

static inline uint64_t end_of(const struct index *index, uint32_t block) {
  return index->starts[block] + size_of(index, block);
}

/* Not the instruction: it is not in every x86-64. */
static inline unsigned bits_set(uint64_t word) {
  word -= word >> 1 & 0x5555555555555555u;
  word = (word & 0x3333333333333333u) + (word >> 2 & 0x3333333333333333u);
  return (unsigned)(((word + (word >> 4)) & 0x0f0f0f0f0f0f0f0fu) * 0x0101010101010101u >> 56);
}

static inline const struct places *places_of(const struct index *index, const struct region *region,
                                             uint64_t address) {
  size_t at = (address - region->low) >> index->shift >> 6;
  return &region->places[at < region->count ? at : region->count - 1];
}

/* The last block that does not begin behind `address`, and whether it begins right there. */
static inline uint32_t block_before(const struct index *index, const struct region *region,
                                    const struct places *places, uint64_t address,
                                    bool *ret_exact) {
  uint64_t offset = address - region->low, bits = places->low | (uint64_t)places->high << 32;
  unsigned bit = offset >> index->shift & 63;
  *ret_exact = bits >> bit & 1 && !(offset & ((1u << index->shift) - 1));
  return places->before + bits_set(bits & ((2ull << bit) - 1)) - 1;
}

/* ---- hidden.c: addresses that a constant hides ---- */

struct hidden;
/* Whether distances may be counted from this address. */
typedef bool hidden_is_base(void *about, uint64_t address);

/* NULL: no memory. */
struct hidden *hidden_new(void);
void hidden_free(struct hidden *hidden);
/* A word that is no address; `reached`: in memory that the program can get at. */
void hidden_add(struct hidden *hidden, uint64_t word, bool reached);
bool hidden_is_full(const struct hidden *hidden);
/* Which of the blocks that begin at `starts`, ascending, have their addresses among the words, all
 * hidden by one constant; sets `found` of these, and returns how many they are. */
size_t hidden_find(const struct hidden *hidden, const uint64_t *starts, size_t count,
                   hidden_is_base *is_base, void *about, uint8_t *found);
