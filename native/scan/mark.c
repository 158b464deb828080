// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Mark and sweep over somebody else's memory: which blocks can be reached from the roots,
 * with the kinds and the rules of valgrind's memcheck (memcheck/mc_leakcheck.c).
 *
 * Blocks are sorted by address; an index with an entry each 512 bytes finds the block of an
 * address in a few steps. Memory is read in batches: all blocks that wait are sorted, runs of
 * neighbours become one read, and pieces of memory that are looked at a lot are kept.
 */
#define _GNU_SOURCE
#include <stdbool.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

enum { UNREACHED = 0, LEADER = 1, INDIRECT = 2, POSSIBLE = 3, REACHABLE = 4 };

#define GRANULE 9u            /* log2 bytes to an index entry */
#define REGION_GAP (4u << 20) /* a gap in the heap that starts another index */
#define BUFFER (4u << 20)     /* bytes of the process's memory held at a time */
#define BATCH 512u            /* reads whose answers are looked at together */
#define JOIN 256u             /* bytes of gap that are cheaper to read than to leave out */
#define TAKE 8192u            /* blocks taken off the stack at a time */
#define NO_BLOCK UINT32_MAX
#define PIECE 14u             /* log2 bytes of the process's memory that are kept at a time */
#define PIECE_AFTER 4u        /* small reads of a piece before it is read whole and kept */
#define KEPT_SHARE 16u        /* of the heap, one byte in so many may be kept */

struct region {
  uint64_t low, high; /* addresses */
  uint32_t *first;    /* per granule: first block that ends beyond its start */
  uint8_t *visits;    /* per piece: small reads since it was kept last */
  size_t granules;
};

/* A piece of memory that is kept, because much of it is looked at. */
struct piece {
  uint64_t start, bytes; /* bytes 0: none */
  uint8_t *memory;
};

/* Memory we hold ourselves: a core file. Ascending, not overlapping. */
struct segment {
  uint64_t start, end;
  const uint8_t *bytes;
};

struct span {
  uint64_t start, end;
};

struct lss_scan {
  int pid;    /* 0: `segments` */
  int memory; /* its memory, -1: none */
  const struct segment *segments;
  size_t segment_count;
  const uint64_t *starts, *sizes;
  size_t count;
  uint8_t *state;    /* caller's, one a block */
  uint32_t *leader;  /* caller's: of an indirectly lost block, the block that leads to it */
  uint64_t *from;    /* caller's or NULL: where the pointer was that reached a block first */
  uint64_t guard;    /* glibc's pointer guard, 0: unknown */
  const struct span *tables; /* where C++ vtables are */
  size_t table_count;
  struct region *regions;
  size_t region_count;
  uint64_t low, high;
  uint32_t *stack;
  size_t depth, room;
  uint8_t *buffer;
  uint32_t *batch, *small; /* blocks being looked at */
  struct piece *pieces;
  size_t piece_count;
  uint64_t scanned; /* bytes */
  uint64_t unread;  /* bytes that could not be read */
  bool failed;      /* out of memory: answers would be wrong */
  /* what a pointer that is found means */
  uint32_t clique;  /* the leader whose clique is being collected, NO_BLOCK: marking */
  bool definite;    /* the chain so far has no interior pointer */
};

EXPORT struct lss_scan *lss_new(int pid, const struct segment *segments, size_t segment_count,
                                const uint64_t *starts, const uint64_t *sizes, size_t count,
                                uint8_t *state, uint32_t *leader, uint64_t guard,
                                const struct span *tables, size_t table_count);
EXPORT void lss_free(struct lss_scan *scan);
EXPORT int lss_roots(struct lss_scan *scan, const struct span *spans, size_t count);
EXPORT void lss_keep_from(struct lss_scan *scan, uint64_t *from);
EXPORT int lss_words(struct lss_scan *scan, const uint64_t *words, size_t count, uint64_t origin);
EXPORT int lss_sweep(struct lss_scan *scan);
EXPORT uint64_t lss_scanned(const struct lss_scan *scan);
EXPORT uint64_t lss_unread(const struct lss_scan *scan);
EXPORT size_t lss_find_words(struct lss_scan *scan, uint64_t start, uint64_t end, uint64_t low,
                             uint64_t high, uint64_t *places, uint64_t *values, size_t room);

/* ---- the index ---- */

static inline uint64_t size_of(const struct lss_scan *scan, uint32_t block) {
  uint64_t size = scan->sizes[block];
  return size ? size : 1; /* a block of no bytes has an address all the same */
}

static inline uint64_t end_of(const struct lss_scan *scan, uint32_t block) {
  return scan->starts[block] + size_of(scan, block);
}

static bool build_index(struct lss_scan *scan) {
  size_t room = 0;
  uint64_t bytes = 0;
  for (size_t i = 0; i < scan->count;) {
    size_t last = i;
    while (last + 1 < scan->count &&
           scan->starts[last + 1] < end_of(scan, (uint32_t)last) + REGION_GAP)
      last++;
    if (scan->region_count == room) {
      room = room ? room * 2 : 64;
      struct region *more = realloc(scan->regions, room * sizeof *more);
      if (!more)
        return false;
      scan->regions = more;
    }
    struct region *region = &scan->regions[scan->region_count++];
    region->low = scan->starts[i];
    region->high = end_of(scan, (uint32_t)last);
    region->granules = ((region->high - region->low) >> GRANULE) + 1;
    region->first = malloc(region->granules * sizeof *region->first);
    region->visits = calloc(((region->high - region->low) >> PIECE) + 2, 1);
    if (!region->first || !region->visits)
      return false;
    bytes += region->high - region->low;
    size_t block = i;
    for (size_t g = 0; g < region->granules; g++) {
      uint64_t at = region->low + ((uint64_t)g << GRANULE);
      while (block < last && end_of(scan, (uint32_t)block) <= at)
        block++;
      region->first[g] = (uint32_t)block;
    }
    i = last + 1;
  }
  if (scan->count) {
    scan->low = scan->starts[0];
    scan->high = scan->regions[scan->region_count - 1].high;
  }
  scan->piece_count = scan->pid ? (bytes / KEPT_SHARE >> PIECE) + 16 : 0;
  scan->pieces = calloc(scan->piece_count + 1, sizeof *scan->pieces);
  return scan->pieces != NULL;
}

static uint32_t find_in(const struct lss_scan *scan, const struct region *region, uint64_t address) {
  uint32_t block = region->first[(address - region->low) >> GRANULE];
  while (block < scan->count && end_of(scan, block) <= address)
    block++;
  return block < scan->count && scan->starts[block] <= address ? block : NO_BLOCK;
}

static struct region *region_of(const struct lss_scan *scan, uint64_t address) {
  size_t low = 0, high = scan->region_count;
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (scan->regions[middle].high <= address)
      low = middle + 1;
    else
      high = middle;
  }
  return low < scan->region_count && address >= scan->regions[low].low ? &scan->regions[low] : NULL;
}

static inline uint32_t find(const struct lss_scan *scan, uint64_t address) {
  if (address - scan->low >= scan->high - scan->low)
    return NO_BLOCK;
  const struct region *region = region_of(scan, address);
  return region ? find_in(scan, region, address) : NO_BLOCK;
}

/* ---- reading ---- */

static const uint8_t *local(const struct lss_scan *scan, uint64_t address, uint64_t *ret_bytes) {
  size_t low = 0, high = scan->segment_count;
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (scan->segments[middle].end <= address)
      low = middle + 1;
    else
      high = middle;
  }
  if (low == scan->segment_count || address < scan->segments[low].start)
    return NULL;
  *ret_bytes = scan->segments[low].end - address;
  return scan->segments[low].bytes + (address - scan->segments[low].start);
}

/* Read up to `bytes`; returns how many from the start could be read. */
static uint64_t read_at(const struct lss_scan *scan, uint64_t address, void *out, uint64_t bytes) {
  if (scan->pid) {
    /* Not process_vm_readv: it pins pages, for which the kernel copies every page that a forked
     * image shares with its parent. */
    ssize_t got = pread(scan->memory, out, bytes, (off_t)address);
    return got > 0 ? (uint64_t)got : 0;
  }
  uint64_t done = 0, have;
  while (done < bytes) {
    const uint8_t *from = local(scan, address + done, &have);
    if (!from)
      break;
    uint64_t take = have < bytes - done ? have : bytes - done;
    memcpy((uint8_t *)out + done, from, take);
    done += take;
  }
  return done;
}

static bool read_word(const struct lss_scan *scan, uint64_t address, uint64_t *ret) {
  return read_at(scan, address, ret, sizeof *ret) == sizeof *ret;
}

/* ---- what an interior pointer may mean (memcheck's heuristics) ---- */

static bool in_tables(const struct lss_scan *scan, uint64_t address) {
  for (size_t i = 0; i < scan->table_count; i++)
    if (address >= scan->tables[i].start && address < scan->tables[i].end)
      return true;
  return false;
}

/* A vtable lies in read-only data of a module and begins with the address of code. */
static bool is_object(const struct lss_scan *scan, uint64_t address) {
  uint64_t table;
  return !(address & 7) && read_word(scan, address, &table) && !(table & 7) && in_tables(scan, table);
}

static bool explained(const struct lss_scan *scan, uint32_t block, uint64_t pointer) {
  uint64_t start = scan->starts[block], size = size_of(scan, block), offset = pointer - start;
  uint64_t word;
  /* A tree of tsearch keeps a colour in the lowest bit (glibc misc/tsearch.c). */
  if (offset == 1 && size == 24)
    return true;
  if (offset == 8 && read_word(scan, start, &word)) {
    if (word == size - 8) /* length64 */
      return true;
    if (word && word <= size && (size - 8) % word == 0) /* newarray: the count of elements */
      return true;
  }
  if (offset == 24) { /* stdstring: length, capacity, reference count, text */
    uint64_t head[2];
    if (read_at(scan, start, head, sizeof head) == sizeof head && head[0] <= head[1] &&
        24 + head[1] + 1 == size)
      return true;
  }
  /* multipleinheritance: the pointer is to a later base of the object */
  return !(pointer & 7) && size >= offset + 8 && is_object(scan, pointer) && is_object(scan, start);
}

/* ---- marking ---- */

static void push(struct lss_scan *scan, uint32_t block) {
  if (scan->depth == scan->room) {
    size_t room = scan->room ? scan->room * 2 : 4096;
    uint32_t *more = realloc(scan->stack, room * sizeof *more);
    if (!more) {
      scan->failed = true;
      return;
    }
    scan->stack = more;
    scan->room = room;
  }
  scan->stack[scan->depth++] = block;
}

static void met(struct lss_scan *scan, uint32_t block, uint64_t pointer, uint64_t place) {
  uint8_t old = scan->state[block];
  if (scan->clique != NO_BLOCK) {
    /* Any pointer from a lost block, to its start or not, makes another one indirect. */
    if (old == UNREACHED || (old == LEADER && block != scan->clique)) {
      scan->state[block] = INDIRECT;
      scan->leader[block] = scan->clique;
      if (old == UNREACHED)
        push(scan, block);
    }
    return;
  }
  if (old == REACHABLE)
    return;
  uint8_t fresh = scan->definite && (pointer == scan->starts[block] || explained(scan, block, pointer))
                      ? REACHABLE
                      : POSSIBLE;
  if (fresh > old) {
    scan->state[block] = fresh;
    if (scan->from)
      scan->from[block] = place;
    push(scan, block);
  }
}

static inline void look(struct lss_scan *scan, uint64_t word, uint64_t place) {
  uint32_t block = find(scan, word);
  if (block != NO_BLOCK) {
    met(scan, block, word, place);
  } else if (scan->guard && word >> 48) {
    /* glibc's PTR_MANGLE, as in jmp_buf: xor with the guard, then rotated left by 17. */
    uint64_t plain = (word >> 17 | word << 47) ^ scan->guard;
    block = find(scan, plain);
    if (block != NO_BLOCK)
      met(scan, block, plain, place);
  }
}

/* `memory` is a copy of `bytes` from `place`. */
static void look_at(struct lss_scan *scan, const uint8_t *memory, uint64_t bytes, uint64_t place) {
  scan->scanned += bytes;
  for (uint64_t i = 0; i + 8 <= bytes; i += 8) {
    uint64_t word;
    memcpy(&word, memory + i, sizeof word);
    /* Most words are small numbers. */
    if (word - scan->low < scan->high - scan->low || word >> 48)
      look(scan, word, place + i);
  }
}

static void look_at_range(struct lss_scan *scan, uint64_t start, uint64_t end) {
  start = (start + 7) & ~7ull;
  while (start < end) {
    uint64_t want = end - start < BUFFER ? end - start : BUFFER;
    uint64_t got = read_at(scan, start, scan->buffer, want);
    look_at(scan, scan->buffer, got, start);
    if (got < want) {
      /* Go on behind the page that could not be read. */
      uint64_t skip = ((start + got) | 4095) + 1;
      scan->unread += (skip < end ? skip : end) - (start + got);
      start = skip;
    } else {
      start += got;
    }
  }
}

static int by_number(const void *a, const void *b) {
  uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
  return (left > right) - (left < right);
}

/* Memory of a block whose surroundings are looked at a lot, NULL: read it by itself. A piece is
 * read whole after some small reads, so that scattered blocks cost little more than those. */
static const uint8_t *kept(struct lss_scan *scan, uint32_t block) {
  uint64_t start = scan->starts[block], end = end_of(scan, block);
  uint64_t base = start >> PIECE << PIECE;
  if (!scan->piece_count || (end - 1) >> PIECE != start >> PIECE)
    return NULL;
  struct piece *piece = &scan->pieces[(start >> PIECE) % scan->piece_count];
  if (piece->bytes && piece->start == base)
    return end - base <= piece->bytes ? piece->memory + (start - base) : NULL;
  const struct region *region = region_of(scan, start);
  uint8_t *visits = &region->visits[(base >> PIECE) - (region->low >> PIECE)];
  if (++*visits < PIECE_AFTER)
    return NULL;
  *visits = 0;
  if (!piece->memory)
    piece->memory = malloc(1u << PIECE);
  if (!piece->memory)
    return NULL;
  piece->start = base;
  piece->bytes = read_at(scan, base, piece->memory, 1u << PIECE);
  return end - base <= piece->bytes ? piece->memory + (start - base) : NULL;
}

/* Read a sorted batch of small blocks, then look at each. All of a batch have
 * the same standing: definite, or not. */
static void look_at_batch(struct lss_scan *scan, const uint32_t *blocks, size_t count) {
  size_t run_bytes[BATCH];
  size_t runs = 0, bytes = 0, taken = 0;
  uint64_t run_start[BATCH];
  size_t run_offset[BATCH];
  while (taken < count) {
    runs = bytes = 0;
    size_t from = taken;
    for (; taken < count; taken++) {
      uint64_t start = scan->starts[blocks[taken]], end = end_of(scan, blocks[taken]);
      uint64_t run_end = runs ? run_start[runs - 1] + run_bytes[runs - 1] : 0;
      if (runs && start <= run_end + JOIN) {
        if (end <= run_end)
          continue;
        if (bytes + (end - run_end) > BUFFER)
          break;
        run_bytes[runs - 1] += end - run_end;
        bytes += end - run_end;
      } else {
        if (runs == BATCH || bytes + (end - start) > BUFFER)
          break;
        run_start[runs] = start;
        run_offset[runs] = bytes;
        run_bytes[runs] = end - start;
        bytes += end - start;
        runs++;
      }
    }
    for (size_t r = 0; r < runs; r++) {
      uint64_t got = read_at(scan, run_start[r], scan->buffer + run_offset[r], run_bytes[r]);
      memset(scan->buffer + run_offset[r] + got, 0, run_bytes[r] - got);
      scan->unread += run_bytes[r] - got;
    }
    size_t run = 0;
    for (size_t i = from; i < taken; i++) {
      uint64_t start = scan->starts[blocks[i]];
      while (run + 1 < runs && run_start[run + 1] <= start)
        run++;
      look_at(scan, scan->buffer + run_offset[run] + (start - run_start[run]),
              end_of(scan, blocks[i]) - start, start);
    }
  }
}

/* Follow everything that waits on the stack. */
static void follow(struct lss_scan *scan) {
  static const uint64_t large = 256u << 10;
  uint32_t *batch = scan->batch, *other = scan->small;
  while (scan->depth && !scan->failed) {
    size_t n = scan->depth < TAKE ? scan->depth : TAKE;
    scan->depth -= n;
    memcpy(batch, scan->stack + scan->depth, n * sizeof *batch);
    if (n > 1)
      qsort(batch, n, sizeof *batch, by_number);
    for (int pass = 0; pass < 2; pass++) {
      /* First those of a definite chain: they may lift others out of the second group. */
      size_t m = 0;
      for (size_t i = 0; i < n; i++) {
        uint8_t state = scan->state[batch[i]];
        bool definite = state == REACHABLE;
        if (scan->clique == NO_BLOCK ? definite != !pass : pass)
          continue;
        scan->definite = definite;
        const uint8_t *memory;
        if (size_of(scan, batch[i]) > large)
          look_at_range(scan, scan->starts[batch[i]], end_of(scan, batch[i]));
        else if ((memory = kept(scan, batch[i])))
          look_at(scan, memory, size_of(scan, batch[i]), scan->starts[batch[i]]);
        else
          other[m++] = batch[i];
      }
      scan->definite = !pass;
      look_at_batch(scan, other, m);
    }
  }
}

/* ---- the interface ---- */

struct lss_scan *lss_new(int pid, const struct segment *segments, size_t segment_count,
                         const uint64_t *starts, const uint64_t *sizes, size_t count,
                         uint8_t *state, uint32_t *leader, uint64_t guard,
                         const struct span *tables, size_t table_count) {
  struct lss_scan *scan = calloc(1, sizeof *scan);
  if (!scan)
    return NULL;
  scan->pid = pid;
  scan->memory = -1;
  if (pid) {
    char path[32];
    snprintf(path, sizeof path, "/proc/%d/mem", pid);
    scan->memory = open(path, O_RDONLY | O_CLOEXEC);
  }
  scan->segments = segments;
  scan->segment_count = segment_count;
  scan->starts = starts;
  scan->sizes = sizes;
  scan->count = count;
  scan->state = state;
  scan->leader = leader;
  scan->guard = guard;
  scan->tables = tables;
  scan->table_count = table_count;
  scan->clique = NO_BLOCK;
  scan->buffer = malloc(BUFFER);
  scan->batch = malloc(2 * TAKE * sizeof *scan->batch);
  scan->small = scan->batch + TAKE;
  if ((pid && scan->memory < 0) || !scan->buffer || !scan->batch || count >= NO_BLOCK || !build_index(scan)) {
    lss_free(scan);
    return NULL;
  }
  return scan;
}

void lss_free(struct lss_scan *scan) {
  if (scan->memory >= 0)
    close(scan->memory);
  for (size_t i = 0; i < scan->region_count; i++) {
    free(scan->regions[i].first);
    free(scan->regions[i].visits);
  }
  for (size_t i = 0; scan->pieces && i < scan->piece_count; i++)
    free(scan->pieces[i].memory);
  free(scan->pieces);
  free(scan->regions);
  free(scan->buffer);
  free(scan->batch);
  free(scan->stack);
  free(scan);
}

int lss_roots(struct lss_scan *scan, const struct span *spans, size_t count) {
  for (size_t i = 0; i < count; i++) {
    scan->definite = true;
    look_at_range(scan, spans[i].start, spans[i].end);
    follow(scan);
  }
  return scan->failed ? -1 : 0;
}

/* Keep, for each block, the address of the first pointer that gave it its standing. */
void lss_keep_from(struct lss_scan *scan, uint64_t *from) { scan->from = from; }

/* Words of no address, such as registers; `origin` is what is kept as their place. */
int lss_words(struct lss_scan *scan, const uint64_t *words, size_t count, uint64_t origin) {
  scan->definite = true;
  for (size_t i = 0; i < count; i++)
    look(scan, words[i], origin);
  follow(scan);
  return scan->failed ? -1 : 0;
}

/* Everything that was not reached is lost: leaders, and what only lost blocks point to. */
int lss_sweep(struct lss_scan *scan) {
  for (size_t i = 0; i < scan->count; i++) {
    if (scan->state[i] != UNREACHED)
      continue;
    scan->state[i] = LEADER;
    scan->clique = (uint32_t)i;
    push(scan, (uint32_t)i);
    follow(scan);
  }
  scan->clique = NO_BLOCK;
  return scan->failed ? -1 : 0;
}

uint64_t lss_scanned(const struct lss_scan *scan) { return scan->scanned; }
uint64_t lss_unread(const struct lss_scan *scan) { return scan->unread; }

/* Words of [start, end) whose value lies in [low, high): where they are and what they hold. */
size_t lss_find_words(struct lss_scan *scan, uint64_t start, uint64_t end, uint64_t low,
                      uint64_t high, uint64_t *places, uint64_t *values, size_t room) {
  size_t n = 0;
  start = (start + 7) & ~7ull;
  while (start < end && n < room) {
    uint64_t want = end - start < BUFFER ? end - start : BUFFER;
    uint64_t got = read_at(scan, start, scan->buffer, want);
    for (uint64_t i = 0; i + 8 <= got && n < room; i += 8) {
      uint64_t word;
      memcpy(&word, scan->buffer + i, sizeof word);
      if (word >= low && word < high) {
        places[n] = start + i;
        values[n++] = word;
      }
    }
    start = got < want ? ((start + got) | 4095) + 1 : start + got;
  }
  return n;
}
