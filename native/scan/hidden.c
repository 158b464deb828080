// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Addresses that a constant hides: kept as the exclusive or with a secret, with something added, or
 * as a 32-bit distance from a base, in bytes or in units of 2 to 16 of them.
 *
 * Nobody knows the constant, but two blocks tell how far apart their hidden forms must be. Where
 * two words are so far apart, the constant follows, and the other blocks say whether it is one:
 * most of them must have a word, and hardly any address beside theirs may (a table of all small
 * numbers has a word for everything).
 */
#include "scan.h"

#include <stdlib.h>
#include <string.h>

#define LEAST 3u              /* blocks that a constant explains */
#define LEAST_NARROW 12u      /* small numbers are more often what they are by chance */
#define WORDS_MOST (1u << 19) /* that are looked at */
#define KEYS_MOST (1u << 18)
#define SMALL 16u    /* a smaller number is no distance */
#define PROBES 64u   /* blocks that are asked whether a constant fits */
#define RANKED 1024u /* ... and how well */
#define PAIRS 6u     /* of blocks that constants are made from */
#define TRIALS 512u  /* constants of a pair that are tried */
#define EQUALS 16u   /* constants that fit a regular row equally: more are no evidence */
#define LOOKUPS (8u << 20)
#define STEPS 16u /* to addresses beside a block */
#define UNITS 5u  /* 1, 2, 4, 8 and 16 bytes */

/* A set of numbers, 0 not among them. */
struct keys {
  uint64_t *all;
  uint8_t *reached; /* whether it was seen in memory that is reached */
  size_t room, count;
};

struct hidden {
  struct keys wide, narrow; /* 64 and 32 bits */
  uint32_t looked;
};

static size_t slot_of(const struct keys *keys, uint64_t key) {
  size_t at = (size_t)(key * 0x9e3779b97f4a7c15ull >> 20) & (keys->room - 1);
  while (keys->all[at] && keys->all[at] != key)
    at = (at + 1) & (keys->room - 1);
  return at;
}

static inline bool has(const struct keys *keys, uint64_t key) {
  return key && keys->count && keys->all[slot_of(keys, key)] == key;
}

static bool grow(struct keys *keys) {
  struct keys more = {.room = keys->room ? keys->room * 2 : 4096, .count = keys->count};
  more.all = calloc(more.room, sizeof *more.all);
  more.reached = calloc(more.room, 1);
  if (!more.all || !more.reached) {
    free(more.all);
    free(more.reached);
    return false;
  }
  for (size_t i = 0; i < keys->room; i++)
    if (keys->all[i]) {
      size_t at = slot_of(&more, keys->all[i]);
      more.all[at] = keys->all[i];
      more.reached[at] = keys->reached[i];
    }
  free(keys->all);
  free(keys->reached);
  *keys = more;
  return true;
}

static void add(struct keys *keys, uint64_t key, bool reached) {
  if (keys->count * 2 >= keys->room && (keys->count >= KEYS_MOST || !grow(keys)))
    return;
  size_t at = slot_of(keys, key);
  keys->count += !keys->all[at];
  keys->all[at] = key;
  keys->reached[at] |= reached;
}

struct hidden *hidden_new(void) {
  return calloc(1, sizeof(struct hidden));
}

void hidden_free(struct hidden *hidden) {
  if (!hidden)
    return;
  free(hidden->wide.all);
  free(hidden->wide.reached);
  free(hidden->narrow.all);
  free(hidden->narrow.reached);
  free(hidden);
}

bool hidden_is_full(const struct hidden *hidden) { return hidden->looked >= WORDS_MOST; }

void hidden_add(struct hidden *hidden, uint64_t word, bool reached) {
  if (hidden->looked >= WORDS_MOST)
    return;
  hidden->looked++;
  uint32_t low = (uint32_t)word, high = (uint32_t)(word >> 32);
  if (high)
    add(&hidden->wide, word, reached);
  if (low >= SMALL)
    add(&hidden->narrow, low, reached);
  if (high >= SMALL)
    add(&hidden->narrow, high, reached);
}

/* ---- what hides ---- */

enum form { ADDED, XORED, DISTANCE };

struct constant {
  enum form form;
  unsigned unit; /* log2 of a distance's */
  uint64_t value;
};

/* What is kept of an address; 0: cannot be. */
static inline uint64_t kept_of(const struct constant *constant, uint64_t address) {
  if (constant->form == XORED)
    return address ^ constant->value;
  if (constant->form == ADDED)
    return address + constant->value;
  uint64_t far = address - constant->value;
  if (far & ((1u << constant->unit) - 1) || far >> constant->unit > UINT32_MAX)
    return 0;
  far >>= constant->unit;
  return far < SMALL ? 0 : far;
}

static inline const struct keys *keys_of(const struct hidden *hidden,
                                         const struct constant *constant) {
  return constant->form == DISTANCE ? &hidden->narrow : &hidden->wide;
}

struct row {
  const uint64_t *starts;
  size_t count;
  int64_t beside[STEPS]; /* steps by which nearly no block leads to another one */
  size_t beside_count;
  bool regular; /* most follow each other at the same distance */
};

static bool in_row(const struct row *row, uint64_t address) {
  size_t low = 0, high = row->count;
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (row->starts[middle] < address)
      low = middle + 1;
    else
      high = middle;
  }
  return low < row->count && row->starts[low] == address;
}

/* Evenly, the first and the last among them: a constant that is off by one fits all but one. */
static inline uint64_t probe(const struct row *row, size_t i, size_t probes) {
  return row->starts[i * (row->count - 1) / (probes - 1)];
}

static size_t probes_of(const struct row *row, size_t most) {
  return row->count < most ? row->count : most;
}

static void learn(struct row *row) {
  /* Tables have numbers in steps of powers of two. */
  static const int steps[STEPS] = {16,  -16,  32,  -32,  64,  -64,  96,   -96,
                                   128, -128, 256, -256, 512, -512, 1024, -1024};
  size_t probes = probes_of(row, PROBES);
  for (size_t s = 0; s < STEPS; s++) {
    size_t same = 0;
    for (size_t i = 0; i < probes; i++)
      same += in_row(row, probe(row, i, probes) + (uint64_t)(int64_t)steps[s]);
    if (same * 8 <= probes)
      row->beside[row->beside_count++] = steps[s];
  }
  size_t same = 0;
  for (size_t i = 2; i < row->count; i++)
    same += row->starts[i] - row->starts[i - 1] == row->starts[i - 1] - row->starts[i - 2];
  row->regular = same * 3 >= row->count;
}

/* How many of the probes have a word; with `step`, how many addresses beside them. */
static size_t hits_of(const struct hidden *hidden, const struct row *row,
                      const struct constant *constant, int64_t step, size_t most) {
  const struct keys *keys = keys_of(hidden, constant);
  size_t probes = probes_of(row, most), hits = 0;
  for (size_t i = 0; i < probes; i++) {
    hits += has(keys, kept_of(constant, probe(row, i, probes) + (uint64_t)step));
    if (i == 15 && hits < 4)
      break;
  }
  return hits;
}

static bool fits(const struct hidden *hidden, const struct row *row,
                 const struct constant *constant) {
  size_t hits = hits_of(hidden, row, constant, 0, PROBES);
  bool narrow = constant->form == DISTANCE;
  size_t least = narrow ? LEAST_NARROW : LEAST, probes = probes_of(row, PROBES);
  if (hits < least || hits * 2 < probes || (narrow && hits * 5 < probes * 4) || !row->beside_count)
    return false;
  for (size_t i = 0; i < row->beside_count; i++)
    if (hits_of(hidden, row, constant, row->beside[i], PROBES) * 4 > hits)
      return false;
  return true;
}

/* ---- */

struct search {
  const struct hidden *hidden;
  const struct row *row;
  hidden_is_base *is_base;
  void *about;
  struct constant best[EQUALS];
  size_t equals, hits; /* how many fit equally well, and how well */
  size_t trials;
};

static void try_constant(struct search *search, struct constant constant) {
  if (search->trials++ >= TRIALS || !fits(search->hidden, search->row, &constant))
    return;
  size_t hits = hits_of(search->hidden, search->row, &constant, 0, RANKED);
  if (hits < search->hits)
    return;
  if (hits > search->hits)
    search->equals = 0;
  search->hits = hits;
  for (size_t i = 0; i < search->equals && i < EQUALS; i++)
    if (search->best[i].value == constant.value && search->best[i].form == constant.form)
      return;
  if (search->equals < EQUALS)
    search->best[search->equals] = constant;
  search->equals++;
}

/* The constant that fits best; NULL: none. Numbers in a row are everywhere: of blocks in a row
 * only distances from a base that is one tell, and only where no others do as well. */
static const struct constant *best_of(const struct search *search) {
  for (size_t i = 0; i < search->equals && i < EQUALS; i++)
    if (search->best[i].form != DISTANCE || !search->row->regular ||
        (search->equals <= EQUALS && search->is_base(search->about, search->best[i].value)))
      return &search->best[i];
  return NULL;
}

static void try_pair(struct search *search, uint64_t one, uint64_t other) {
  const struct keys *wide = &search->hidden->wide, *narrow = &search->hidden->narrow;
  uint64_t far = other - one;
  search->trials = 0;
  for (size_t i = 0; i < wide->room && !lss_is_cancelled(); i++) {
    uint64_t word = wide->all[i];
    if (!word)
      continue;
    if (has(wide, word + far))
      try_constant(search, (struct constant){ADDED, 0, word - one});
    if (has(wide, word ^ one ^ other))
      try_constant(search, (struct constant){XORED, 0, word ^ one});
  }
  for (unsigned unit = 0; unit < UNITS && !(far & ((1u << unit) - 1)); unit++) {
    uint64_t steps = far >> unit;
    if (steps > UINT32_MAX)
      continue;
    search->trials = 0;
    for (size_t i = 0; i < narrow->room && !lss_is_cancelled(); i++) {
      uint64_t word = narrow->all[i];
      if (word && has(narrow, word + steps) && word + steps <= UINT32_MAX)
        try_constant(search, (struct constant){DISTANCE, unit, one - (word << unit)});
    }
  }
}

size_t hidden_find(const struct hidden *hidden, const uint64_t *starts, size_t count,
                   hidden_is_base *is_base, void *about, uint8_t *found) {
  struct row row = {.starts = starts, .count = count};
  if (count < LEAST || !hidden->looked)
    return 0;
  learn(&row);
  struct search search = {.hidden = hidden, .row = &row, .is_base = is_base, .about = about};
  size_t each = hidden->wide.room * 2 + hidden->narrow.room * UNITS, left = LOOKUPS;
  for (size_t i = 0; i < PAIRS && left >= each; i++, left -= each) {
    size_t at = i * (count - 1) / PAIRS, other = at + 1 + i % 2;
    if (other < count)
      try_pair(&search, starts[at], starts[other]);
    if (search.hits * 5 > probes_of(&row, RANKED) * 4)
      break;
  }
  const struct constant *best = best_of(&search);
  if (!best)
    return 0;
  const struct keys *keys = keys_of(hidden, best);
  size_t hits = 0;
  bool reached = false;
  for (size_t i = 0; i < count; i++) {
    uint64_t kept = kept_of(best, starts[i]);
    found[i] = has(keys, kept);
    hits += found[i];
    reached |= found[i] && keys->reached[slot_of(keys, kept)];
  }
  if (!reached) /* they hold each other, and nobody holds one of them */
    memset(found, 0, count);
  return reached ? hits : 0;
}
