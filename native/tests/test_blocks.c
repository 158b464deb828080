// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * The live-block table against a plain list of what is in it.
 *
 * Random insertions and removals of random addresses, dense and sparse, with addresses that are
 * alike in the half of the key that look-ups compare first, while the table grows and when it
 * cannot grow any more. After every round the table's own rules are checked: each block once,
 * no empty slot between a block's home and its place, a mark on every bucket that one passed.
 * Prints what failed and exits 1.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "blocks.h"
#include "sys.h"

static struct ls_live *memory;
struct ls_live *ls_live;
static uint8_t *base;
static uint64_t bump = 4096, heap_left;

__thread struct ls_local ls_tls;

void ls_shard_await(const struct ls_thread *owner, const struct ls_shard *shard) {
  (void)owner, (void)shard;
}

void ls_lock_wake(struct ls_lock *lock) { lock->awaited = 0; }

void ls_lock_contended(struct ls_lock *lock) {
  while (!ls_trylock(lock))
    ;
}

uint8_t *ls_heap_take(uint64_t bytes, uint64_t *ret_offset) {
  if (bytes > heap_left)
    return NULL;
  heap_left -= bytes;
  *ret_offset = bump;
  bump += bytes;
  return base + *ret_offset;
}

void ls_heap_release(uint8_t *at, uint64_t offset, uint64_t bytes) {
  if (offset % 4096 || bytes % 4096 || at != base + offset)
    abort();
  mprotect(base + offset, bytes, PROT_NONE); /* whoever still uses it dies */
}

#define CHECK(condition, ...)                                                  \
  do {                                                                         \
    if (!(condition)) {                                                        \
      printf("%s:%d: %s: ", __func__, __LINE__, #condition);                   \
      printf(__VA_ARGS__);                                                     \
      printf("\n");                                                            \
      exit(1);                                                                 \
    }                                                                          \
  } while (0)

static uint64_t state = 88172645463325252u;
static uint64_t draw(void) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state;
}

/* ---- what the table must hold ---- */

struct known {
  uintptr_t address;
  uint64_t what;
  uint32_t site;
};
static struct known known[1 << 16];
static uint32_t count;

static uint32_t place_in_list(uintptr_t address) {
  uint32_t i = 0;
  while (i < count && known[i].address != address)
    i++;
  return i;
}

static void check_table(void) {
  uint64_t found = 0;
  for (uint32_t s = 0; s < LSR_SHARDS; s++) {
    struct ls_shard *shard = &ls_live->shards[s];
    uint32_t live = 0, buckets = shard->buckets;
    for (uint32_t i = 0; i < buckets * BUCKET; i++) {
      struct lsr_block *block = &shard->table[i];
      if (!block->where)
        continue;
      live++;
      uintptr_t address = (uintptr_t)(block->where & ADDRESS_MASK) << 3;
      CHECK(ls_shard_of(address) == shard, "%lx is in a wrong shard", (unsigned long)address);
      for (uint32_t b = ls_home_of(address, buckets); b != i / BUCKET; b = b + 1 == buckets ? 0 : b + 1) {
        CHECK(shard->passed[b], "bucket %u was passed", b);
        for (uint32_t k = 0; k < BUCKET; k++)
          CHECK(shard->table[b * BUCKET + k].where, "bucket %u has room", b);
      }
      found++;
    }
    CHECK(live == shard->live, "%u, not %u", live, shard->live);
    struct lsr_shard *shown = &ls_live->header->shards[s];
    CHECK(!buckets || (shown->capacity == buckets * BUCKET &&
                       (struct lsr_block *)(base + shown->offset) == shard->table),
          "readers look elsewhere");
  }
  CHECK(found == count, "%lu blocks, not %u", (unsigned long)found, count);
}

static struct ls_thread thread;

/* Returns false when the table had no room. */
static bool insert(uintptr_t address) {
  struct lsr_block replaced;
  struct known new = {address, draw() & ~(1ull << 31), 1 + (uint32_t)draw() % 1000};
  uint32_t i = place_in_list(address);
  enum ls_insert result = ls_block_insert(&thread, ls_place_of(address), address, new.site, new.what, &replaced);
  if (result == LS_FULL)
    return false;
  CHECK((result == LS_REPLACED) == (i < count), "%lx", (unsigned long)address);
  if (result == LS_REPLACED)
    CHECK(replaced.what == known[i].what && ls_block_site(&replaced) == known[i].site, "another block");
  known[i] = new;
  if (i == count)
    count++;
  return true;
}

static void remove_block(uintptr_t address) {
  struct lsr_block block;
  uint32_t i = place_in_list(address);
  bool found = ls_block_remove(&thread, ls_place_of(address), address, &block);
  CHECK(found == (i < count), "%lx", (unsigned long)address);
  if (!found)
    return;
  CHECK(block.what == known[i].what && ls_block_site(&block) == known[i].site, "another block");
  known[i] = known[--count];
}

static void start(uint64_t room) {
  memset(memory, 0, sizeof *memory);
  memset(&thread, 0, sizeof thread);
  if (base)
    munmap(base, 1u << 30);
  base = mmap(NULL, 1u << 30, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  static struct lsr_header header;
  memset(&header, 0, sizeof header);
  memory->header = &header;
  ls_live = memory;
  bump = 4096;
  heap_left = room;
  count = 0;
}

/* An address among `many` that are close together, or one that differs from it by a multiple of
 * 32 GiB and so has the same lower half of the key. */
static uintptr_t some_address(uint32_t many) {
  uintptr_t address = 0x7f0012340000u + (draw() % many) * 16;
  return draw() % 4 ? address : address ^ (draw() % 64) << 35;
}

static void random_work(uint32_t many, uint32_t rounds, uint64_t room) {
  start(room);
  bool full = false;
  for (uint32_t round = 0; round < rounds; round++) {
    uint32_t bias = draw() % 8; /* grows and shrinks */
    for (uint32_t i = 0; i < 400; i++) {
      if (draw() % 8 < bias && count < sizeof known / sizeof *known - 1)
        full |= !insert(some_address(many));
      else if (count && draw() % 8)
        remove_block(known[draw() % count].address);
      else
        remove_block(some_address(many));
    }
    check_table();
  }
  CHECK(full == (room < 1 << 20), "the table %s", full ? "was full" : "was not full");
  while (count)
    remove_block(known[draw() % count].address);
  check_table();
}

static void refused_addresses(void) {
  start(1 << 20);
  CHECK(!insert(0x800000000u * 3), "its key cannot be told from an empty slot");
  struct lsr_block block;
  CHECK(!ls_block_remove(&thread, ls_place_of(0x800000000u * 3), 0x800000000u * 3, &block), "found");
  CHECK(insert(0x800000000u * 3 + 16), "refused");
  check_table();
}

/* Two blocks in one bucket with the same lower half of the key. */
static void alike_addresses(void) {
  struct lsr_block bucket[BUCKET] __attribute__((aligned(64))) = {0};
  uint64_t key = 0x0fe002468000, alike = key ^ 5ull << 32;
  uint32_t empty;
  bucket[2].where = alike | 7ull << LSR_BLOCK_ADDRESS_BITS;
  CHECK(!ls_bucket_slot(bucket, ls_bucket_match(bucket, key, &empty), key), "it is the other one");
  bucket[6].where = key | 9ull << LSR_BLOCK_ADDRESS_BITS;
  CHECK(ls_bucket_slot(bucket, ls_bucket_match(bucket, key, &empty), key) == &bucket[6], "wrong slot");
  CHECK(ls_bucket_slot(bucket, ls_bucket_match(bucket, alike, &empty), alike) == &bucket[2], "wrong slot");
  CHECK(empty == (0xff & ~(1u << 2 | 1u << 6)), "%x", empty);
}

int main(void) {
  memory = aligned_alloc(LS_LIVE_WIPED, sizeof *memory);
  random_work(300, 300, 1u << 28);
  random_work(3000, 200, 1u << 28);
  random_work(200000, 100, 1u << 28);
  random_work(3000, 200, 40960);
  alike_addresses();
  refused_addresses();
  puts("ok");
  return 0;
}
