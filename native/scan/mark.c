// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Mark and sweep over somebody else's memory: which blocks can be reached from the roots,
 * with the kinds and the rules of valgrind's memcheck (memcheck/mc_leakcheck.c).
 *
 * Blocks are sorted by address; an index with an entry each 512 bytes finds the block of an
 * address in a few steps. Memory is read in batches: all blocks that wait are sorted, runs of
 * neighbours become one read, and one system call makes up to 512 reads.
 */
#define _GNU_SOURCE
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#define EXPORT __attribute__((visibility("default")))

enum { UNREACHED = 0, LEADER = 1, INDIRECT = 2, POSSIBLE = 3, REACHABLE = 4 };

#define GRANULE 9u            /* log2 bytes to an index entry */
#define REGION_GAP (4u << 20) /* a gap in the heap that starts another index */
#define BUFFER (4u << 20)     /* bytes of the process's memory held at a time */
#define BATCH 512u            /* reads to a system call; the kernel takes 1024 */
#define JOIN 256u             /* bytes of gap that are cheaper to read than to leave out */
#define TAKE 8192u            /* blocks taken off the stack at a time */
#define NO_BLOCK UINT32_MAX

struct region {
  uint64_t low, high; /* addresses */
  uint32_t *first;    /* per granule: first block that ends beyond its start */
  size_t granules;
};

/* Memory we hold ourselves: a core file. */
struct segment {
  uint64_t start, end;
  const uint8_t *bytes;
};

struct span {
  uint64_t start, end;
};

struct lss_scan {
  int pid; /* 0: `segments` */
  const struct segment *segments;
  size_t segment_count;
  const uint64_t *starts, *sizes;
  size_t count;
  uint8_t *state;    /* caller's, one a block */
  uint32_t *leader;  /* caller's: of an indirectly lost block, the block that leads to it */
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
EXPORT int lss_words(struct lss_scan *scan, const uint64_t *words, size_t count);
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
    if (!region->first)
      return false;
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
  return true;
}

static uint32_t find_in(const struct lss_scan *scan, const struct region *region, uint64_t address) {
  uint32_t block = region->first[(address - region->low) >> GRANULE];
  while (block < scan->count && end_of(scan, block) <= address)
    block++;
  return block < scan->count && scan->starts[block] <= address ? block : NO_BLOCK;
}

static inline uint32_t find(const struct lss_scan *scan, uint64_t address) {
  if (address - scan->low >= scan->high - scan->low)
    return NO_BLOCK;
  size_t low = 0, high = scan->region_count;
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (scan->regions[middle].high <= address)
      low = middle + 1;
    else
      high = middle;
  }
  if (low == scan->region_count || address < scan->regions[low].low)
    return NO_BLOCK;
  return find_in(scan, &scan->regions[low], address);
}

/* ---- reading ---- */

static const uint8_t *local(const struct lss_scan *scan, uint64_t address, uint64_t *ret_bytes) {
  for (size_t i = 0; i < scan->segment_count; i++)
    if (address >= scan->segments[i].start && address < scan->segments[i].end) {
      *ret_bytes = scan->segments[i].end - address;
      return scan->segments[i].bytes + (address - scan->segments[i].start);
    }
  return NULL;
}

/* Read up to `bytes`; returns how many from the start could be read. */
static uint64_t read_at(const struct lss_scan *scan, uint64_t address, void *out, uint64_t bytes) {
  if (scan->pid) {
    struct iovec here = {out, bytes}, there = {(void *)address, bytes};
    ssize_t got = process_vm_readv(scan->pid, &here, 1, &there, 1, 0);
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

static void met(struct lss_scan *scan, uint32_t block, uint64_t pointer) {
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
    push(scan, block);
  }
}

static inline void look(struct lss_scan *scan, uint64_t word) {
  uint32_t block = find(scan, word);
  if (block != NO_BLOCK) {
    met(scan, block, word);
  } else if (scan->guard && word >> 48) {
    /* glibc's PTR_MANGLE, as in jmp_buf: xor with the guard, then rotated left by 17. */
    uint64_t plain = (word >> 17 | word << 47) ^ scan->guard;
    block = find(scan, plain);
    if (block != NO_BLOCK)
      met(scan, block, plain);
  }
}

static void look_at(struct lss_scan *scan, const uint8_t *memory, uint64_t bytes) {
  scan->scanned += bytes;
  for (uint64_t i = 0; i + 8 <= bytes; i += 8) {
    uint64_t word;
    memcpy(&word, memory + i, sizeof word);
    /* Most words are small numbers. */
    if (word - scan->low < scan->high - scan->low || word >> 48)
      look(scan, word);
  }
}

static void look_at_range(struct lss_scan *scan, uint64_t start, uint64_t end) {
  start = (start + 7) & ~7ull;
  while (start < end) {
    uint64_t want = end - start < BUFFER ? end - start : BUFFER;
    uint64_t got = read_at(scan, start, scan->buffer, want);
    look_at(scan, scan->buffer, got);
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

/* Read a sorted batch of small blocks with one call, then look at each. All of a batch have
 * the same standing: definite, or not. */
static void look_at_batch(struct lss_scan *scan, const uint32_t *blocks, size_t count) {
  struct iovec there[BATCH];
  size_t runs = 0, bytes = 0, taken = 0;
  uint64_t run_start[BATCH];
  size_t run_offset[BATCH];
  while (taken < count) {
    runs = bytes = 0;
    size_t from = taken;
    for (; taken < count; taken++) {
      uint64_t start = scan->starts[blocks[taken]], end = end_of(scan, blocks[taken]);
      uint64_t run_end = runs ? run_start[runs - 1] + there[runs - 1].iov_len : 0;
      if (runs && start <= run_end + JOIN) {
        if (end <= run_end)
          continue;
        if (bytes + (end - run_end) > BUFFER)
          break;
        there[runs - 1].iov_len += end - run_end;
        bytes += end - run_end;
      } else {
        if (runs == BATCH || bytes + (end - start) > BUFFER)
          break;
        run_start[runs] = start;
        run_offset[runs] = bytes;
        there[runs] = (struct iovec){(void *)start, end - start};
        bytes += end - start;
        runs++;
      }
    }
    struct iovec here = {scan->buffer, bytes};
    bool whole = false;
    if (scan->pid)
      whole = process_vm_readv(scan->pid, &here, 1, there, runs, 0) == (ssize_t)bytes;
    if (!whole)
      for (size_t r = 0; r < runs; r++) {
        uint64_t got = read_at(scan, run_start[r], scan->buffer + run_offset[r], there[r].iov_len);
        memset(scan->buffer + run_offset[r] + got, 0, there[r].iov_len - got);
        scan->unread += there[r].iov_len - got;
      }
    size_t run = 0;
    for (size_t i = from; i < taken; i++) {
      uint64_t start = scan->starts[blocks[i]];
      while (run + 1 < runs && run_start[run + 1] <= start)
        run++;
      look_at(scan, scan->buffer + run_offset[run] + (start - run_start[run]),
              end_of(scan, blocks[i]) - start);
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
        if (size_of(scan, batch[i]) > large)
          look_at_range(scan, scan->starts[batch[i]], end_of(scan, batch[i]));
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
  if (!scan->buffer || !scan->batch || count >= NO_BLOCK || !build_index(scan)) {
    lss_free(scan);
    return NULL;
  }
  return scan;
}

void lss_free(struct lss_scan *scan) {
  for (size_t i = 0; i < scan->region_count; i++)
    free(scan->regions[i].first);
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

int lss_words(struct lss_scan *scan, const uint64_t *words, size_t count) {
  scan->definite = true;
  for (size_t i = 0; i < count; i++)
    look(scan, words[i]);
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
