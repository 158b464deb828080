// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Mark and sweep over somebody else's memory: which blocks can be reached from the roots,
 * with the kinds and the rules of valgrind's memcheck (memcheck/mc_leakcheck.c).
 *
 * The heap is read once, from its lowest block to its highest (the pass). What the pointers of a
 * block that is known to be reachable lead to is marked at once; those of any other block are
 * noted as edges, to be followed when it is reached after all. So following never waits for the
 * memory of the process, in whatever order its blocks lie. Blocks that hold very many pointers,
 * and those for which there is no room for more edges, are read again when they are reached.
 *
 * Looking up an address, an edge or a state is a cache miss. All are done by the batch: what the
 * next step needs of each is prefetched while the others are looked at.
 */
#define _GNU_SOURCE
#include "scan.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { UNREACHED = 0, LEADER = 1, INDIRECT = 2, POSSIBLE = 3, REACHABLE = 4 };

/* Bits of a block's state beside its kind; known once the pass has seen the block. */
#define KIND 7u
#define HEAD_8 8u       /* its first word explains a pointer 8 bytes behind */
#define HEAD_24 16u     /* its first words explain a pointer 24 bytes behind */
#define HEAD_OBJECT 32u /* begins with the address of a vtable */
#define SEARCHED 128u   /* for addresses in another form; not reached: noted */
#define AGAIN 64u       /* its interior pointers are to be looked at after the pass */

/* An edge: the block it leads to, and where into it. */
#define TARGET ((1u << 29) - 1)
enum { TO_START = 0, TO_8 = 1, TO_24 = 2, TO_BASE = 3 /* maybe of an object */, TO_INSIDE = 4 };
#define TAG_SHIFT 29u

#define EMPTY_ARRAY 9u   /* a count of elements, and one byte that is not there */
#define RUN (256u << 10) /* bytes of the heap that the pass holds at a time: less than the cache */
#define VISIT (1u << 20) /* bytes of a range that is looked at by itself */
#define JOIN 4096u       /* bytes of gap that are cheaper to read than to leave out */
#define QUEUE 256u       /* pointers that are looked up together */
#define BATCH 64u        /* blocks that are followed together */
#define PER_GROUP 12u    /* blocks */
#define MANY 255u        /* edges, or no room for them: read the block instead */
#define EDGES_SHARE 8u   /* of the heap's bytes, one in so many may be spent on edges */
#define EDGES_LEAST (16u << 20)

/* Where the edges of some blocks are: one after another from `first` on. */
struct group {
  uint32_t first;
  uint8_t count[PER_GROUP];
};

/* A word that may be a pointer, found at `place`. */
struct candidate {
  const struct region *region;
  const struct places *places;
  uint64_t word, place;
  uint32_t source; /* block that the pass found it in, NO_BLOCK: not in the pass */
  uint32_t target;
  bool exact;
};

struct lss_scan {
  struct image image;
  struct index index;
  uint8_t *state;    /* caller's, one a block */
  uint32_t *leader;  /* caller's: of an indirectly lost block, 1 + the block that leads to it */
  uint64_t *from;    /* caller's or NULL: where the pointer was that reached a block first */
  uint64_t guard;    /* glibc's pointer guard, 0: unknown */
  const struct span *tables; /* where C++ vtables are, ascending */
  size_t table_count;
  const struct region *region; /* where the last address was */
  uint32_t *stack;
  size_t depth, room;
  struct group *groups;
  size_t group_count, group; /* the one that gets edges */
  uint32_t *edges;
  size_t edge_count, edge_room, edge_most;
  struct candidate *queue;
  size_t queued;
  uint8_t *run, *visit; /* buffers */
  uint32_t seen;        /* blocks that the pass is through with, or in the middle of the last */
  uint64_t scanned;     /* bytes */
  uint64_t unread;      /* bytes that could not be read */
  bool failed;          /* out of memory: answers would be wrong */
  /* what a pointer that is found outside the pass means */
  uint32_t clique; /* the leader whose clique is being collected, NO_BLOCK: marking */
  bool definite;   /* the chain so far has no interior pointer */
};

EXPORT struct lss_scan *lss_new(int pid, const struct segment *segments, size_t segment_count,
                                const uint64_t *starts, const void *sizes, int wide, size_t count,
                                uint8_t *state, uint32_t *leader, uint64_t guard,
                                const struct span *tables, size_t table_count);
EXPORT void lss_free(struct lss_scan *scan);
EXPORT void lss_roots(struct lss_scan *scan, const struct span *spans, size_t count);
EXPORT void lss_only_resident(struct lss_scan *scan, const struct span *spans, size_t count);
EXPORT void lss_keep_from(struct lss_scan *scan, uint64_t *from);
EXPORT void lss_words(struct lss_scan *scan, const uint64_t *words, size_t count, uint64_t origin);
EXPORT int lss_follow(struct lss_scan *scan);
EXPORT long lss_disguised(struct lss_scan *scan, const struct span *spans, size_t count,
                          size_t lasting);
EXPORT int lss_sweep(struct lss_scan *scan);
EXPORT uint64_t lss_scanned(const struct lss_scan *scan);
EXPORT uint64_t lss_unread(const struct lss_scan *scan);

static inline uint8_t kind_of(const struct lss_scan *scan, uint32_t block) {
  return scan->state[block] & KIND;
}

/* ---- what an interior pointer may mean (memcheck's heuristics) ---- */

static bool in_tables(const struct lss_scan *scan, uint64_t address) {
  size_t low = 0, high = scan->table_count;
  if (!high || address < scan->tables[0].start || address >= scan->tables[high - 1].end)
    return false;
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (scan->tables[middle].end <= address)
      low = middle + 1;
    else
      high = middle;
  }
  return low < scan->table_count && address >= scan->tables[low].start;
}

/* A vtable lies in read-only data of a module and begins with the address of code. */
static bool is_table(const struct lss_scan *scan, uint64_t address) {
  return !(address & 7) && in_tables(scan, address);
}

static bool is_object(const struct lss_scan *scan, uint64_t address) {
  uint64_t table;
  return !(address & 7) && image_word(&scan->image, address, &table) && is_table(scan, table);
}

/* What a block's first `have` bytes, of 16 if it has so many, say of pointers into it. */
static uint8_t head_of(const struct lss_scan *scan, uint32_t block, const uint8_t *bytes,
                       uint64_t have) {
  uint64_t size = size_of(&scan->index, block), head[2] = {0, 0};
  uint8_t found = 0;
  if (size <= 8)
    return 0;
  memcpy(head, bytes, have < 16 ? have : 16);
  if (head[0] && (head[0] == size - 8 || /* length64 */
                  /* newarray: the count of elements */
                  (head[0] <= size && (size - 8) % head[0] == 0)))
    found |= HEAD_8;
  if (size == EMPTY_ARRAY && !head[0])
    found |= HEAD_8;
  /* stdstring: length, capacity, reference count, text */
  if (head[0] <= head[1] && 24 + head[1] + 1 == size)
    found |= HEAD_24;
  if (!(scan->index.starts[block] & 7) && is_table(scan, head[0]))
    found |= HEAD_OBJECT;
  return found;
}

static uint8_t read_head(const struct lss_scan *scan, uint32_t block) {
  uint8_t bytes[16];
  return head_of(scan, block, bytes,
                 image_read(&scan->image, scan->index.starts[block], bytes, sizeof bytes));
}

static inline unsigned tag_of(const struct lss_scan *scan, uint32_t block, uint64_t pointer) {
  uint64_t offset = pointer - scan->index.starts[block], size = size_of(&scan->index, block);
  /* A tree of tsearch keeps a colour in the lowest bit (glibc misc/tsearch.c). */
  if (!offset || (offset == 1 && size == 24))
    return TO_START;
  if (offset == 8)
    return TO_8;
  if (offset == 24)
    return TO_24;
  return !(pointer & 7) && size >= offset + 8 ? TO_BASE : TO_INSIDE;
}

/* Whether a pointer is as good as one to the start, given the block's head: 1 yes, 0 no, -1 ask
 * the object that it points to. */
static inline int is_explained(unsigned tag, uint8_t head) {
  if (tag == TO_START || (tag == TO_8 && head & HEAD_8) || (tag == TO_24 && head & HEAD_24))
    return 1;
  return tag != TO_INSIDE && head & HEAD_OBJECT ? -1 : 0;
}

static bool explained(const struct lss_scan *scan, uint32_t block, uint64_t pointer) {
  unsigned tag = tag_of(scan, block, pointer);
  if (tag == TO_START || tag == TO_INSIDE)
    return tag == TO_START;
  int answer = is_explained(tag, block < scan->seen ? scan->state[block] : read_head(scan, block));
  /* multipleinheritance: the pointer is to a later base of the object */
  return answer > 0 || (answer < 0 && pointer + 8 <= end_of(&scan->index, block) &&
                        is_object(scan, pointer));
}

/* ---- the graph ---- */

static inline unsigned edges_of(const struct lss_scan *scan, uint32_t block) {
  return scan->groups[block / PER_GROUP].count[block % PER_GROUP];
}

static inline const uint32_t *first_edge(const struct lss_scan *scan, uint32_t block) {
  const struct group *group = &scan->groups[block / PER_GROUP];
  size_t first = group->first;
  for (unsigned i = 0; i < block % PER_GROUP; i++)
    first += group->count[i] == MANY ? 0 : group->count[i];
  return scan->edges + first;
}

/* Note an edge of the block that the pass is at. */
static void add_edge(struct lss_scan *scan, uint32_t block, uint32_t target, unsigned tag) {
  struct group *group = &scan->groups[block / PER_GROUP];
  uint8_t *count = &group->count[block % PER_GROUP];
  uint32_t edge = target | tag << TAG_SHIFT;
  if (*count == MANY)
    return;
  if (scan->group != block / PER_GROUP) {
    scan->group = block / PER_GROUP;
    group->first = (uint32_t)scan->edge_count;
  }
  if (*count && scan->edges[scan->edge_count - 1] == edge)
    return;
  if (scan->from || *count == MANY - 1 || scan->edge_count == scan->edge_most) {
    scan->edge_count -= *count;
    *count = MANY;
    return;
  }
  if (scan->edge_count == scan->edge_room) {
    size_t room = scan->edge_room ? scan->edge_room + scan->edge_room / 4 : 1u << 16;
    uint32_t *more = realloc(scan->edges, room * sizeof *more);
    if (!more) {
      scan->failed = true;
      return;
    }
    scan->edges = more;
    scan->edge_room = room;
  }
  scan->edges[scan->edge_count++] = edge;
  ++*count;
}

/* ---- marking ---- */

static void push(struct lss_scan *scan, uint32_t block) {
  if (!edges_of(scan, block))
    return;
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

/* Blocks that the pass has still to come to need no push: it will see their state. */
static inline void raise_to(struct lss_scan *scan, uint32_t block, uint8_t kind, uint64_t place) {
  uint8_t old = scan->state[block];
  if (kind <= (old & KIND))
    return;
  scan->state[block] = (uint8_t)((old & ~KIND) | kind);
  if (scan->from)
    scan->from[block] = place;
  if (block < scan->seen)
    push(scan, block);
}

/* Any pointer from a lost block, to its start or not, makes another one indirect. */
static inline void join_clique(struct lss_scan *scan, uint32_t block) {
  uint8_t old = kind_of(scan, block);
  if (old == UNREACHED || (old == LEADER && block != scan->clique)) {
    scan->state[block] = (uint8_t)((scan->state[block] & ~KIND) | INDIRECT);
    scan->leader[block] = scan->clique + 1;
    if (old == UNREACHED)
      push(scan, block);
  }
}

/* A pointer in a root, or in a block that is visited. */
static void met(struct lss_scan *scan, uint32_t block, uint64_t pointer, uint64_t place) {
  if (scan->clique != NO_BLOCK)
    join_clique(scan, block);
  else if (kind_of(scan, block) != REACHABLE)
    raise_to(scan, block,
             scan->definite && explained(scan, block, pointer) ? REACHABLE : POSSIBLE, place);
}

/* A pointer that the pass found in the block it is at. */
static void passed(struct lss_scan *scan, const struct candidate *found) {
  uint32_t source = found->source, target = found->target;
  scan->seen = source + 1;
  if (source == target || kind_of(scan, target) == REACHABLE)
    return; /* nothing more can become of it */
  uint8_t kind = kind_of(scan, source);
  unsigned tag = found->exact ? TO_START : tag_of(scan, target, found->word);
  if (kind == REACHABLE && tag == TO_START) {
    raise_to(scan, target, REACHABLE, found->place);
    return;
  }
  if (kind == REACHABLE || kind == POSSIBLE)
    raise_to(scan, target, POSSIBLE, found->place);
  if (kind == REACHABLE && tag == TO_INSIDE)
    return;
  if (kind == REACHABLE)
    scan->state[source] |= AGAIN; /* the head of the target may not be known yet */
  add_edge(scan, source, target, tag);
}

/* Look up all that is queued. */
static void look_up(struct lss_scan *scan) {
  const struct index *index = &scan->index;
  for (size_t i = 0; i < scan->queued; i++) {
    struct candidate *each = &scan->queue[i];
    each->target = block_before(index, each->region, each->places, each->word, &each->exact);
    __builtin_prefetch(&scan->state[each->target]);
    if (!each->exact) {
      __builtin_prefetch(&index->starts[each->target]);
      size_t width = index->wide ? sizeof(uint64_t) : sizeof(uint32_t);
      __builtin_prefetch((const uint8_t *)index->sizes + each->target * width);
    }
    if (each->target < scan->seen)
      __builtin_prefetch(&scan->groups[each->target / PER_GROUP]);
  }
  size_t queued = scan->queued;
  scan->queued = 0;
  for (size_t i = 0; i < queued; i++) {
    const struct candidate *each = &scan->queue[i];
    if (!each->exact && each->word >= end_of(index, each->target))
      continue;
    if (each->source == NO_BLOCK)
      met(scan, each->target, each->word, each->place);
    else
      passed(scan, each);
  }
}

static void follow(struct lss_scan *scan);

static bool enqueue(struct lss_scan *scan, uint64_t word, uint64_t place, uint32_t source) {
  const struct region *region = scan->region;
  if (!region || word - region->low >= region->high - region->low) {
    region = index_search(&scan->index, word);
    if (!region)
      return false;
    scan->region = region;
  }
  const struct places *places = places_of(&scan->index, region, word);
  __builtin_prefetch(places);
  scan->queue[scan->queued++] = (struct candidate){region, places, word, place, source, 0, false};
  if (scan->queued == QUEUE) {
    look_up(scan);
    if (source != NO_BLOCK)
      follow(scan);
  }
  return true;
}

/* glibc's PTR_MANGLE, as in jmp_buf: xor with the guard, then rotated left by 17. */
static inline uint64_t plain_of(const struct lss_scan *scan, uint64_t word) {
  return (word >> 17 | word << 47) ^ scan->guard;
}

static void look(struct lss_scan *scan, uint64_t word, uint64_t place, uint32_t source) {
  uint64_t low = scan->index.low, range = scan->index.high - low;
  if (word - low < range && enqueue(scan, word, place, source))
    return;
  if (scan->guard && word >> 48 && plain_of(scan, word) - low < range)
    enqueue(scan, plain_of(scan, word), place, source);
}

/* `memory` is a copy of `bytes` from `place`. */
static void look_at(struct lss_scan *scan, const uint8_t *memory, uint64_t bytes, uint64_t place,
                    uint32_t source) {
  uint64_t low = scan->index.low, range = scan->index.high - low, guard = scan->guard;
  for (uint64_t i = -place & 7; i + 8 <= bytes; i += 8) {
    uint64_t word;
    memcpy(&word, memory + i, sizeof word);
    uint64_t plain = (word >> 17 | word << 47) ^ guard;
    /* Most words are numbers or text. */
    if (__builtin_expect((word - low < range) | (plain - low < range), 0))
      look(scan, word, place + i, source);
  }
}

/* Whether the answer is not wanted any more, or would be wrong. */
static inline bool is_over(struct lss_scan *scan) {
  if (lss_is_cancelled())
    scan->failed = true;
  return scan->failed;
}

/* Look at a range by itself; returns how much of it could not be read. */
static uint64_t look_at_range(struct lss_scan *scan, uint64_t start, uint64_t end) {
  uint64_t unread = 0, stop;
  while (image_next(&scan->image, &start, end, &stop) && !is_over(scan)) {
    uint64_t bytes = stop - start < VISIT ? stop - start : VISIT;
    unread += image_fill(&scan->image, start, scan->visit, bytes);
    look_at(scan, scan->visit, bytes, start, NO_BLOCK);
    start += bytes;
  }
  look_up(scan);
  return unread;
}

/* Read a block that has been reached. */
static void visit(struct lss_scan *scan, uint32_t block) {
  scan->definite = kind_of(scan, block) == REACHABLE;
  uint64_t unread =
      look_at_range(scan, scan->index.starts[block], end_of(&scan->index, block));
  if (size_of(&scan->index, block) > RUN) /* else the pass has counted it */
    scan->unread += unread;
}

static void follow_edges(struct lss_scan *scan, uint32_t block, const uint32_t *edges,
                         unsigned count) {
  bool definite = kind_of(scan, block) == REACHABLE, read = count == MANY;
  for (unsigned i = 0; i < count && !read; i++) {
    uint32_t target = edges[i] & TARGET;
    if (scan->clique != NO_BLOCK) {
      join_clique(scan, target);
      continue;
    }
    if (kind_of(scan, target) == REACHABLE)
      continue;
    unsigned tag = edges[i] >> TAG_SHIFT;
    int as_start = 0;
    if (definite && tag == TO_START)
      as_start = 1;
    else if (definite && target < scan->seen)
      as_start = is_explained(tag, scan->state[target]);
    else if (definite)
      scan->state[block] |= AGAIN;
    raise_to(scan, target, as_start > 0 ? REACHABLE : POSSIBLE, 0);
    read = as_start < 0;
  }
  if (read)
    visit(scan, block);
}

/* Follow everything that waits on the stack. */
static void follow(struct lss_scan *scan) {
  uint32_t blocks[BATCH];
  const uint32_t *edges[BATCH];
  while (scan->depth && !is_over(scan)) {
    size_t n = scan->depth < BATCH ? scan->depth : BATCH;
    scan->depth -= n;
    memcpy(blocks, scan->stack + scan->depth, n * sizeof *blocks);
    for (size_t i = 0; i < n; i++) {
      edges[i] = first_edge(scan, blocks[i]);
      __builtin_prefetch(edges[i]);
    }
    for (size_t i = 0; i < n; i++) {
      unsigned count = edges_of(scan, blocks[i]);
      for (unsigned k = 0; k < count && count != MANY && k < 16; k++) {
        uint32_t target = edges[i][k] & TARGET;
        __builtin_prefetch(&scan->state[target]);
        __builtin_prefetch(&scan->groups[target / PER_GROUP]);
      }
    }
    for (size_t i = 0; i < n; i++)
      follow_edges(scan, blocks[i], edges[i], edges_of(scan, blocks[i]));
  }
}

/* ---- the pass ---- */

static void pass_large(struct lss_scan *scan, uint32_t block) {
  look_up(scan);
  follow(scan);
  scan->state[block] |= read_head(scan, block);
  scan->groups[block / PER_GROUP].count[block % PER_GROUP] = MANY;
  scan->seen = block + 1;
  if (kind_of(scan, block) >= POSSIBLE)
    visit(scan, block);
  follow(scan);
}

/* Blocks `from` up to `to`, near each other. */
static void pass_run(struct lss_scan *scan, uint32_t from, uint32_t to) {
  uint64_t base = scan->index.starts[from], bytes = end_of(&scan->index, to - 1) - base;
  bool holes = image_fill(&scan->image, base, scan->run, bytes);
  for (uint32_t block = from; block < to; block++) {
    uint64_t start = scan->index.starts[block], size = size_of(&scan->index, block);
    const uint8_t *memory = scan->run + (start - base);
    if (holes)
      scan->unread += image_fill(&scan->image, start, scan->run + (start - base), size);
    scan->state[block] |= head_of(scan, block, memory, size);
    look_at(scan, memory, size, start, block);
  }
}

static void pass(struct lss_scan *scan) {
  const struct index *index = &scan->index;
  for (uint32_t block = 0; block < index->count && !is_over(scan);) {
    if (size_of(index, block) > RUN) {
      scan->scanned +=
          image_resident(&scan->image, index->starts[block], end_of(index, block));
      pass_large(scan, block++);
      continue;
    }
    scan->scanned += size_of(index, block);
    uint64_t base = index->starts[block], end = end_of(index, block);
    uint32_t next = block + 1;
    while (next < index->count && index->starts[next] <= end + JOIN &&
           end_of(index, next) - base <= RUN) {
      end = end_of(index, next);
      scan->scanned += size_of(index, next++);
    }
    pass_run(scan, block, next);
    block = next;
  }
  look_up(scan);
  scan->seen = index->count;
  follow(scan);
  for (uint32_t block = 0; block < index->count && !scan->failed; block++) {
    if (!(scan->state[block] & AGAIN))
      continue;
    scan->state[block] &= (uint8_t)~AGAIN;
    if (kind_of(scan, block) != REACHABLE)
      continue;
    push(scan, block);
    if (scan->depth >= BATCH)
      follow(scan);
  }
  follow(scan);
}

/* ---- addresses in another form ---- */

#define SEARCH_MOST (128u << 20) /* bytes of blocks that are searched, evenly over all */
#define SEARCH_ROOTS (64u << 20) /* and of roots, from the first on */
#define SEARCH_ROUNDS 16u
#define GROUPS 4u
#define GROUP_GAP (1ull << 36)
#define ADDRESS ((1ull << 48) - 1)
#define BYTES 0x0101010101010101ull
#define MOST_SHIFT 4 /* bits that an address may be shifted by, beside whole bytes */
#define PAGE_SHIFT 12

#define FAR 4096u      /* a shorter distance may be any small number */
#define CLASSES 1024u  /* sizes of blocks, a power of two */
#define FEW 3u         /* links of one size that may be chance */
#define CHAINS (1u << 13) /* neighbours far away that are read */
#define LINK_WORDS 16u /* of a node of a list, where its link may be */

#define HIGHS 64u /* upper halves of addresses that there are */
#define IN_FRONT \
  24u /* bytes by which an address may be before the block that is meant: not
                        * as far as that of one that was freed */
#define DOUBTS 256u
#define SIZES 4u /* the most frequent sizes have constants of their own */
#define ROW_MOST (1u << 16)

/* Blocks of one size that nothing points to, to how many of them a distance leads, and how often
 * it leads just beside one: a small number that is everywhere leads everywhere. */
struct class {
  uint64_t size;
  uint32_t all, hits, misses;
  uint32_t beside; /* found by an address beside them */
};

/* Where there are blocks that nothing points to. */
struct wanted {
  struct span groups[GROUPS];
  size_t count;
  uint8_t tops[2 * GROUPS]; /* bits 40 to 47 of their addresses */
  size_t top_count;
  /* A bit for each value of bits 36 to 51 of a word that may be such an address, shifted. */
  uint8_t shifted[(1u << 16) / 8];
  long found;
  struct class classes[CLASSES];
  uint32_t class_count, chains;
  uint32_t *hits; /* blocks that a distance leads to */
  size_t hit_count, hit_room;
  struct hidden *hidden;     /* what is no address, for `find_hidden` */
  uint32_t doubtful[DOUBTS]; /* the end of another block is just before it */
  size_t doubt_count;
  uint32_t highs[HIGHS];
  size_t high_count;
};

/* The class of a size; `make`: also a new one, while there is room. */
static struct class *class_of(struct wanted *wanted, uint64_t size, bool make) {
  uint32_t at = (uint32_t)(size * 0x9e3779b97f4a7c15ull >> 40) % CLASSES;
  while (wanted->classes[at].all && wanted->classes[at].size != size)
    at = (at + 1) % CLASSES;
  struct class *found = &wanted->classes[at];
  if (found->all)
    return found;
  if (!make || wanted->class_count >= CLASSES / 2)
    return NULL;
  wanted->class_count++;
  found->size = size;
  return found;
}

static void want_top(struct wanted *wanted, uint64_t address) {
  uint8_t top = (uint8_t)(address >> 40);
  for (size_t i = 0; i < wanted->top_count; i++)
    if (wanted->tops[i] == top)
      return;
  wanted->tops[wanted->top_count++] = top;
  for (int shift = -MOST_SHIFT; shift <= MOST_SHIFT; shift++)
    for (unsigned low = 0; shift && low < 1u << (MOST_SHIFT + shift); low++)
      for (unsigned high = 0; high < 1u << (MOST_SHIFT - shift); high++) {
        unsigned value = high << (8 + MOST_SHIFT + shift) | top << (MOST_SHIFT + shift) | low;
        wanted->shifted[value / 8] |= (uint8_t)(1u << value % 8);
      }
}

static void want(struct wanted *wanted, const struct lss_scan *scan) {
  const struct index *index = &scan->index;
  for (uint32_t block = 0; block < index->count; block++) {
    if (kind_of(scan, block) != UNREACHED)
      continue;
    struct class *class = class_of(wanted, size_of(index, block), true);
    if (class)
      class->all++;
    struct span *last = wanted->count ? &wanted->groups[wanted->count - 1] : NULL;
    uint64_t start = index->starts[block];
    if (last && (start - last->end < GROUP_GAP || wanted->count == GROUPS))
      last->end = start + 1;
    else
      wanted->groups[wanted->count++] = (struct span){start, start + 1};
  }
  for (size_t i = 0; i < wanted->count; i++) {
    want_top(wanted, wanted->groups[i].start);
    want_top(wanted, wanted->groups[i].end - 1);
  }
}

/* The block that begins at an address, NO_BLOCK: none does. */
static uint32_t block_at(const struct lss_scan *scan, uint64_t address) {
  bool exact;
  const struct region *region = index_search(&scan->index, address);
  if (!region)
    return NO_BLOCK;
  uint32_t block = block_before(&scan->index, region, places_of(&scan->index, region, address),
                                address, &exact);
  return exact ? block : NO_BLOCK;
}

/* The block that begins here and that nothing points to. */
static uint32_t wanted_at(const struct lss_scan *scan, const struct wanted *wanted,
                          uint64_t address) {
  bool inside = false;
  for (size_t i = 0; i < wanted->count; i++)
    inside |= address - wanted->groups[i].start < wanted->groups[i].end - wanted->groups[i].start;
  uint32_t block = inside ? block_at(scan, address) : NO_BLOCK;
  return block != NO_BLOCK && kind_of(scan, block) == UNREACHED ? block : NO_BLOCK;
}

/* Whether this is where such a block begins: then it is only possibly lost. */
static void try(struct lss_scan *scan, struct wanted *wanted, uint64_t address) {
  uint32_t block = wanted_at(scan, wanted, address);
  if (block != NO_BLOCK) {
    wanted->found++;
    raise_to(scan, block, POSSIBLE, 0);
  }
}

/* ---- distances: a pointer is kept as how far it is from where it is kept, or as the exclusive
 * or of both neighbours in a list. One such number is chance as well as another: what counts is
 * that they lead to most blocks of a size. Until then a block is only noted. ---- */

/* Note that a distance leads to a block; returns whether that is new. */
static bool note_hit(struct lss_scan *scan, struct wanted *wanted, uint32_t block) {
  struct class *class = class_of(wanted, size_of(&scan->index, block), false);
  if (!class || scan->state[block] & SEARCHED)
    return false;
  if (wanted->hit_count == wanted->hit_room) {
    size_t room = wanted->hit_room ? 2 * wanted->hit_room : 1024;
    uint32_t *hits = realloc(wanted->hits, room * sizeof *hits);
    if (!hits) {
      scan->failed = true;
      return false;
    }
    wanted->hits = hits;
    wanted->hit_room = room;
  }
  scan->state[block] |= SEARCHED;
  class->hits++;
  wanted->hits[wanted->hit_count++] = block;
  return true;
}

static void try_distance(struct lss_scan *scan, struct wanted *wanted, uint64_t address) {
  uint32_t block = wanted_at(scan, wanted, address);
  if (block != NO_BLOCK) {
    note_hit(scan, wanted, block);
    return;
  }
  for (int step = -16; step <= 16; step += 32) {
    block = wanted_at(scan, wanted, address + (uint64_t)(int64_t)step);
    struct class *class =
        block == NO_BLOCK ? NULL : class_of(wanted, size_of(&scan->index, block), false);
    if (class)
      class->misses++;
  }
}

/* Distances in the blocks that were noted, which may be short: they are known to have some. */
static void follow_distances(struct lss_scan *scan, struct wanted *wanted) {
  for (size_t done = 0; done < wanted->hit_count && !scan->failed && !is_over(scan); done++) {
    uint64_t words[64], start = scan->index.starts[wanted->hits[done]];
    uint64_t size = size_of(&scan->index, wanted->hits[done]) & ~7ull;
    uint64_t have = size < sizeof words ? size : sizeof words;
    image_fill(&scan->image, start, (uint8_t *)words, have);
    for (size_t i = 0; i < have / 8; i++)
      if (words[i])
        try_distance(scan, wanted, start + 8 * i + words[i]);
  }
}

/* From `node` on, to which a link in a block of the same size points, along a list whose links
 * are the exclusive or of both neighbours. */
static void follow_list(struct lss_scan *scan, struct wanted *wanted, uint64_t previous,
                        uint64_t node, uint64_t offset, uint64_t size) {
  while (!scan->failed && !is_over(scan)) {
    uint64_t link = 0;
    image_fill(&scan->image, node + offset, (uint8_t *)&link, sizeof link);
    uint32_t next = link && link != previous ? wanted_at(scan, wanted, link ^ previous) : NO_BLOCK;
    if (next == NO_BLOCK || size_of(&scan->index, next) != size || !note_hit(scan, wanted, next))
      return;
    previous = node;
    node = scan->index.starts[next];
  }
}

/* `start`: the block's; `base` and `have`: of what is in the buffer, where most neighbours are. */
static void try_list(struct lss_scan *scan, struct wanted *wanted, uint32_t block, uint64_t base,
                     uint64_t have) {
  uint64_t size = size_of(&scan->index, block), start = scan->index.starts[block];
  const struct class *class = class_of(wanted, size, false);
  if (!class || class->all < FEW)
    return;
  for (uint64_t i = 0; i < LINK_WORDS && 8 * i + 8 <= size; i++) {
    uint64_t word, link, place = start - base + 8 * i;
    if (place + 8 > have)
      return;
    memcpy(&word, scan->run + place, sizeof word);
    if (!word || word & 7 || word >> 48 || word == start)
      continue;
    place = word - base + 8 * i;
    if (place < have && place + 8 <= have)
      memcpy(&link, scan->run + place, sizeof link);
    else if (wanted->chains++ < CHAINS)
      image_fill(&scan->image, word + 8 * i, (uint8_t *)&link, sizeof link);
    else
      continue;
    if (!link || wanted_at(scan, wanted, link ^ start) == NO_BLOCK)
      continue;
    uint32_t node = block_at(scan, word);
    if (node != NO_BLOCK && size_of(&scan->index, node) == size)
      follow_list(scan, wanted, start, word, 8 * i, size);
  }
}

/* What distances lead to is possibly lost where they lead to at least half of the blocks of its
 * size; returns whether there are any. */
static bool believe_distances(struct lss_scan *scan, struct wanted *wanted) {
  bool any = false;
  follow_distances(scan, wanted);
  for (size_t i = 0; i < wanted->hit_count; i++) {
    uint32_t block = wanted->hits[i];
    const struct class *class = class_of(wanted, size_of(&scan->index, block), false);
    scan->state[block] &= (uint8_t)~SEARCHED;
    if (kind_of(scan, block) != UNREACHED) {
      any = true; /* reached meanwhile, and to be searched now */
      continue;
    }
    if (class->hits < FEW || class->hits < class->all / 2 || class->hits <= 2 * class->misses)
      continue;
    wanted->found++;
    raise_to(scan, block, POSSIBLE, 0);
    any = true;
  }
  wanted->hit_count = 0;
  for (size_t i = 0; i < CLASSES; i++)
    wanted->classes[i].hits = wanted->classes[i].misses = 0;
  return any;
}

/* A word of which byte `byte` may be the highest one of an address: tagged in the high bits, or
 * moved by whole bytes, or in the other byte order. `before` is the word in front of it. */
static void try_byte(struct lss_scan *scan, struct wanted *wanted, uint64_t before, uint64_t word,
                     unsigned byte) {
  uint64_t address = word << (56 - 8 * byte) >> 16;
  if (byte < 5)
    address = (address | before >> (24 + 8 * byte)) & ADDRESS;
  try(scan, wanted, address);
  if (byte == 5)
    try(scan, wanted, address & ~15ull);
  if (byte == 1) /* the upper half first */
    try(scan, wanted, (word << 32 | word >> 32) & ADDRESS);
  if (byte == 2)
    try(scan, wanted, __builtin_bswap64(word) & ADDRESS);
}

/* Shifted by bits, as compressed references and numbers of pages are. */
static void try_shifted(struct lss_scan *scan, struct wanted *wanted, uint64_t word) {
  for (unsigned shift = 1; shift <= MOST_SHIFT; shift++) {
    try(scan, wanted, word >> shift & ADDRESS);
    try(scan, wanted, word << shift & ADDRESS);
  }
}

static bool is_high(const struct wanted *wanted, uint32_t high) {
  for (size_t i = 0; i < wanted->high_count; i++)
    if (wanted->highs[i] == high)
      return true;
  return false;
}

static void want_high(struct wanted *wanted, uint64_t address) {
  uint32_t high = (uint32_t)(address >> 32);
  if (high && wanted->high_count < HIGHS && !is_high(wanted, high))
    wanted->highs[wanted->high_count++] = high;
}

/* Where most blocks of a size have an address right before them, the others do, too. */
static void believe_doubtful(struct lss_scan *scan, struct wanted *wanted) {
  for (size_t i = 0; i < wanted->doubt_count && i < DOUBTS; i++) {
    uint32_t block = wanted->doubtful[i];
    const struct class *class = class_of(wanted, size_of(&scan->index, block), false);
    if (class && class->beside >= FEW && class->beside >= class->all / 2)
      try(scan, wanted, scan->index.starts[block]);
  }
}

static void found_beside(struct lss_scan *scan, struct wanted *wanted, uint32_t block) {
  struct class *class = class_of(wanted, size_of(&scan->index, block), false);
  if (class && note_hit(scan, wanted, block)) /* one alone may be left from a loop */
    class->beside++;
}

/* An address in no block: the end of one that nothing points to, or a little before it, as arrays
 * that count from 1 have it. */
static void try_beside(struct lss_scan *scan, struct wanted *wanted, uint64_t address) {
  const struct index *index = &scan->index;
  bool exact, doubtful = false; /* the end of a block that is reached is just that */
  const struct region *region = index_search(index, address - 1);
  if (region) {
    uint32_t block =
        block_before(index, region, places_of(index, region, address - 1), address - 1, &exact);
    if (end_of(index, block) > address || block_at(scan, address) != NO_BLOCK)
      return;
    bool is_end = end_of(index, block) == address;
    if (is_end && kind_of(scan, block) == UNREACHED) {
      found_beside(scan, wanted, block);
      return;
    }
    doubtful = is_end;
  }
  for (uint64_t far = 4; far <= IN_FRONT; far += 4) {
    uint32_t block = block_at(scan, address + far);
    if (block == NO_BLOCK)
      continue;
    if (doubtful)
      wanted->doubtful[wanted->doubt_count++ % DOUBTS] = block;
    else if (kind_of(scan, block) == UNREACHED)
      found_beside(scan, wanted, block);
    return;
  }
}

/* What is an address with low bits set is one to the inside, which has been seen. Nearly
 * all words are ruled out by one look for the highest byte of an address. `lasting`: no stack,
 * where a loop leaves the end of an array. */
static void search(struct lss_scan *scan, struct wanted *wanted, const uint8_t *memory,
                   uint64_t bytes, uint64_t place, bool lasting) {
  uint64_t before = 0;
  for (uint64_t i = -place & 7; i + 8 <= bytes; i += 8) {
    uint64_t word;
    memcpy(&word, memory + i, sizeof word);
    uint64_t in_front = before;
    before = word;
    if (!(word | in_front))
      continue;
    if (word && wanted->hidden && !is_high(wanted, (uint32_t)(word >> 32)))
      hidden_add(wanted->hidden, word, true);
    if (lasting &&
        word - scan->index.low + IN_FRONT < scan->index.high - scan->index.low + 2 * IN_FRONT)
      try_beside(scan, wanted, word);
    uint64_t target = place + i + word;
    if (target >= wanted->groups[0].start && target < wanted->groups[wanted->count - 1].end &&
        !(target & 7) && word >= FAR)
      try_distance(scan, wanted, target);
    for (size_t k = 0; k < wanted->top_count; k++) {
      uint64_t differs = word ^ BYTES * wanted->tops[k];
      if (!((differs - BYTES) & ~differs & BYTES << 7))
        continue;
      for (unsigned byte = 0; byte < 8; byte++)
        if (!(differs >> 8 * byte & 0xff))
          try_byte(scan, wanted, in_front, word, byte);
    }
    unsigned window = word >> 36 & 0xffff;
    if (wanted->shifted[window / 8] >> window % 8 & 1)
      try_shifted(scan, wanted, word);
    else if (!window && word >> (40 - PAGE_SHIFT))
      try(scan, wanted, word << PAGE_SHIFT);
  }
}

/* Search the blocks that are reached and were not searched; returns whether there were any. */
static bool search_blocks(struct lss_scan *scan, struct wanted *wanted) {
  const struct index *index = &scan->index;
  uint64_t all = 0, done = 0, passed = 0;
  bool any = false;
  for (uint32_t block = 0; block < index->count; block++)
    if (kind_of(scan, block) >= POSSIBLE && !(scan->state[block] & SEARCHED))
      all += size_of(index, block);
  for (uint32_t block = 0; block < index->count && !is_over(scan);) {
    uint32_t first = block;
    uint64_t base = index->starts[first];
    while (++block < index->count && index->starts[block] <= end_of(index, block - 1) + JOIN &&
           end_of(index, block) - base <= RUN)
      ;
    bool wants = false;
    for (uint32_t each = first; each < block && !wants; each++)
      wants = kind_of(scan, each) >= POSSIBLE && !(scan->state[each] & SEARCHED);
    uint64_t bytes = end_of(index, block - 1) - base;
    if (!wants)
      continue;
    passed += bytes;
    /* Evenly: not before as large a part of the allowance is left as of the blocks. */
    bool skip = all > SEARCH_MOST && (double)done / SEARCH_MOST > (double)passed / all;
    uint64_t have = bytes < RUN ? bytes : RUN;
    if (!skip) {
      image_fill(&scan->image, base, scan->run, have);
      done += have;
    }
    for (uint32_t each = first; each < block; each++) {
      if (kind_of(scan, each) < POSSIBLE || scan->state[each] & SEARCHED)
        continue;
      scan->state[each] |= SEARCHED;
      any = true;
      uint64_t start = index->starts[each] - base, size = size_of(index, each);
      if (!skip && start < have) {
        uint64_t seen = size < have - start ? size : have - start;
        search(scan, wanted, scan->run + start, seen, base + start, true);
        try_list(scan, wanted, each, base, have);
      }
    }
  }
  return any;
}

/* ---- constants ---- */

struct unreached {
  uint64_t start, size;
};

static int by_size(const void *one, const void *other) {
  const struct unreached *a = one, *b = other;
  if (a->size != b->size)
    return a->size < b->size ? -1 : 1;
  return a->start < b->start ? -1 : a->start > b->start;
}

/* Distances are counted from a block, from where memory begins, or from nothing. */
static bool is_base(void *about, uint64_t address) {
  const struct lss_scan *scan = about;
  if (!(address & 0xfff))
    return true;
  uint32_t block = block_at(scan, address);
  return block != NO_BLOCK && kind_of(scan, block) >= POSSIBLE;
}

/* Blocks that nothing points to hold the hidden addresses of each other, too. */
static void add_inner(struct lss_scan *scan, struct wanted *wanted) {
  const struct index *index = &scan->index;
  for (uint32_t block = 0; block < index->count; block++) {
    if (kind_of(scan, block) != UNREACHED)
      continue;
    uint64_t words[64], size = size_of(index, block) & ~7ull;
    uint64_t have = size < sizeof words ? size : sizeof words;
    if (hidden_is_full(wanted->hidden) || is_over(scan))
      return;
    image_fill(&scan->image, index->starts[block], (uint8_t *)words, have);
    for (size_t i = 0; i < have / 8; i++)
      if (words[i] && !is_high(wanted, (uint32_t)(words[i] >> 32)))
        hidden_add(wanted->hidden, words[i], false);
  }
}

/* One row of blocks; returns how many were found. */
static size_t find_row(struct lss_scan *scan, struct wanted *wanted, const struct unreached *all,
                       size_t count, uint64_t *starts, uint8_t *found) {
  size_t rest = 0;
  for (size_t i = 0; i < count; i++)
    if (kind_of(scan, block_at(scan, all[i].start)) == UNREACHED)
      starts[rest++] = all[i].start;
  memset(found, 0, rest);
  size_t hits = hidden_find(wanted->hidden, starts, rest, is_base, scan, found);
  for (size_t i = 0; hits && i < rest; i++)
    if (found[i])
      try(scan, wanted, starts[i]);
  return hits;
}

/* What nothing points to, in the order of addresses. */
static size_t list_unreached(const struct lss_scan *scan, struct unreached *all) {
  const struct index *index = &scan->index;
  size_t count = 0;
  for (uint32_t block = 0; block < index->count && count < ROW_MOST; block++)
    if (kind_of(scan, block) == UNREACHED)
      all[count++] = (struct unreached){index->starts[block], size_of(index, block)};
  return count;
}

/* The longest run of one size. */
static size_t most_frequent(const struct unreached *all, size_t count, size_t *ret_first) {
  size_t most = 0;
  for (size_t i = 0, next; i < count; i = next) {
    for (next = i + 1; next < count && all[next].size == all[i].size;)
      next++;
    if (next - i <= most)
      continue;
    *ret_first = i;
    most = next - i;
  }
  return most;
}

/* What is left may be hidden by one constant: all of it, what has one size, or the rest then. */
static void find_hidden(struct lss_scan *scan, struct wanted *wanted) {
  struct unreached *all = malloc(ROW_MOST * sizeof *all);
  uint64_t *starts = malloc(ROW_MOST * sizeof *starts);
  uint8_t *found = malloc(ROW_MOST);
  if (all && starts && found) {
    add_inner(scan, wanted);
    size_t count = list_unreached(scan, all), whole = count, hits = 0, first = 0;
    find_row(scan, wanted, all, count, starts, found);
    qsort(all, count, sizeof *all, by_size);
    for (unsigned turn = 0; turn < SIZES && !is_over(scan); turn++) {
      size_t most = most_frequent(all, count, &first);
      if (most < FEW || most == whole)
        break;
      hits += find_row(scan, wanted, all + first, most, starts, found);
      count -= most;
      memmove(all + first, all + first + most, (count - first) * sizeof *all);
    }
    if (hits)
      find_row(scan, wanted, all, list_unreached(scan, all), starts, found);
  }
  free(all);
  free(starts);
  free(found);
}

/* Look in roots and reached blocks for the addresses of others in another form; those and what
 * they lead to are possibly lost. The first `lasting` roots are no stacks. Between `lss_follow`
 * and `lss_sweep`. Returns how many blocks were found so, -1 on failure. */
long lss_disguised(struct lss_scan *scan, const struct span *spans, size_t count, size_t lasting) {
  struct wanted wanted = {.found = 0};
  uint64_t left = SEARCH_ROOTS;
  if (lss_follow(scan) < 0)
    return -1;
  want(&wanted, scan);
  if (!wanted.count)
    return 0;
  for (size_t i = 0; i < count; i++)
    want_high(&wanted, spans[i].start);
  for (size_t i = 0; i < scan->index.region_count; i++)
    want_high(&wanted, scan->index.regions[i].low);
  wanted.hidden = hidden_new(); /* without it, nothing is found to be hidden */
  for (size_t i = 0; i < count && left && !is_over(scan); i++) {
    uint64_t start = (spans[i].start + 7) & ~7ull, stop;
    while (left && image_next(&scan->image, &start, spans[i].end, &stop)) {
      uint64_t bytes = stop - start < VISIT ? stop - start : VISIT;
      bytes = bytes < left ? bytes : left;
      image_fill(&scan->image, start, scan->visit, bytes);
      search(scan, &wanted, scan->visit, bytes, start, i < lasting);
      start += bytes;
      left -= bytes;
    }
  }
  for (unsigned round = 0; round < SEARCH_ROUNDS && !scan->failed; round++) {
    follow(scan);
    if (!search_blocks(scan, &wanted) && !believe_distances(scan, &wanted))
      break;
  }
  believe_distances(scan, &wanted);
  believe_doubtful(scan, &wanted);
  free(wanted.hits);
  follow(scan);
  if (wanted.hidden)
    find_hidden(scan, &wanted);
  hidden_free(wanted.hidden);
  follow(scan);
  return scan->failed ? -1 : wanted.found;
}

/* ---- the interface ---- */

struct lss_scan *lss_new(int pid, const struct segment *segments, size_t segment_count,
                         const uint64_t *starts, const void *sizes, int wide, size_t count,
                         uint8_t *state, uint32_t *leader, uint64_t guard,
                         const struct span *tables, size_t table_count) {
  struct lss_scan *scan = calloc(1, sizeof *scan);
  if (!scan)
    return NULL;
  scan->image = (struct image){.memory = -1, .segments = segments, .segment_count = segment_count};
  if (pid) {
    char path[32];
    snprintf(path, sizeof path, "/proc/%d/mem", pid);
    scan->image.memory = open(path, O_RDONLY | O_CLOEXEC);
  }
  scan->index = (struct index){.starts = starts, .sizes = sizes, .wide = wide};
  scan->state = state;
  scan->leader = leader;
  scan->guard = guard;
  scan->tables = tables;
  scan->table_count = table_count;
  scan->clique = NO_BLOCK;
  scan->group = SIZE_MAX;
  scan->run = malloc(RUN);
  scan->visit = malloc(VISIT);
  scan->queue = malloc(QUEUE * sizeof *scan->queue);
  scan->group_count = count / PER_GROUP + 1;
  scan->groups = table_new(scan->group_count * sizeof *scan->groups);
  if ((pid && scan->image.memory < 0) || !scan->run || !scan->visit || !scan->queue ||
      !scan->groups || count > TARGET) {
    lss_free(scan);
    return NULL;
  }
  scan->index.count = (uint32_t)count;
  if (!index_build(&scan->index)) {
    lss_free(scan);
    return NULL;
  }
  uint64_t bytes = 0;
  for (uint32_t i = 0; i < scan->index.count; i++)
    bytes += size_of(&scan->index, i);
  bytes /= EDGES_SHARE;
  scan->edge_most = (bytes < EDGES_LEAST ? EDGES_LEAST : bytes) / sizeof *scan->edges;
  if (scan->edge_most > UINT32_MAX)
    scan->edge_most = UINT32_MAX;
  return scan;
}

void lss_free(struct lss_scan *scan) {
  if (scan->image.memory >= 0)
    close(scan->image.memory);
  index_free(&scan->index);
  table_free(scan->groups, scan->group_count * sizeof *scan->groups);
  free(scan->edges);
  free(scan->queue);
  free(scan->run);
  free(scan->visit);
  free(scan->stack);
  free(scan);
}

/* Ranges that hold pointers; what they lead to is followed by `lss_follow`. */
void lss_roots(struct lss_scan *scan, const struct span *spans, size_t count) {
  scan->definite = true;
  for (size_t i = 0; i < count; i++) {
    uint64_t start = (spans[i].start + 7) & ~7ull;
    if (start >= spans[i].end)
      continue;
    scan->scanned += image_resident(&scan->image, start, spans[i].end);
    scan->unread += look_at_range(scan, start, spans[i].end);
  }
}

/* Where the process has pages, ascending: nothing else of it is touched. To be called before
 * anything else; `spans` is kept. */
void lss_only_resident(struct lss_scan *scan, const struct span *spans, size_t count) {
  scan->image.resident = spans;
  scan->image.resident_count = count;
}

/* Keep, for each block, the address of the first pointer that gave it its standing. To be called
 * before anything else. */
void lss_keep_from(struct lss_scan *scan, uint64_t *from) { scan->from = from; }

/* Words of no address, such as registers; `origin` is what is kept as their place. */
void lss_words(struct lss_scan *scan, const uint64_t *words, size_t count, uint64_t origin) {
  scan->definite = true;
  for (size_t i = 0; i < count; i++)
    look(scan, words[i], origin, NO_BLOCK);
  look_up(scan);
}

/* Mark everything that can be reached from the roots so far. */
int lss_follow(struct lss_scan *scan) {
  if (scan->seen < scan->index.count)
    pass(scan);
  else
    follow(scan);
  return scan->failed ? -1 : 0;
}

/* Everything that was not reached is lost: leaders, and what only lost blocks point to. */
int lss_sweep(struct lss_scan *scan) {
  lss_follow(scan);
  for (uint32_t i = 0; i < scan->index.count && !scan->failed; i++) {
    if (kind_of(scan, i) != UNREACHED)
      continue;
    scan->state[i] |= LEADER;
    scan->clique = i;
    push(scan, i);
    follow(scan);
  }
  scan->clique = NO_BLOCK;
  for (uint32_t i = 0; i < scan->index.count; i++)
    scan->state[i] &= KIND;
  return scan->failed ? -1 : 0;
}

uint64_t lss_scanned(const struct lss_scan *scan) { return scan->scanned; }
uint64_t lss_unread(const struct lss_scan *scan) { return scan->unread; }
