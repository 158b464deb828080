// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Memory of the agent's own, apart from the recording. It holds stale copies of the
 * program's registers and stack, so the recording says where it is: a scan for pointers
 * that took it for the program's would find lost blocks reachable.
 */
#include "private.h"
#include "process.h"
#include "seal.h"
#include "str.h"
#include "sys.h"

/* Requests share mappings. Each is an eighth of all before it: few ranges to tell of, and little
 * that is mapped and not used, which counts where the program limits or locks its memory. */
#define LEAST_CHUNK (64u << 10)
#define MOST_CHUNK (64u << 20)
#define LARGE (1u << 20)
#define RESERVE (32u << 20) /* some fifty threads, with their stacks and the indexes of the depot */

/* Copied by fork, as the mappings are. */
static struct lsr_own_range own[LSR_OWN_RANGES];
static uint32_t own_count;
static uint8_t *chunk;
static size_t chunk_left, mapped;

static bool failed(const void *memory) {
  return (intptr_t)memory <= 0 && (intptr_t)memory >= -4095;
}

#define GUARD 4096u

/* The program's limit of data (RLIMIT_DATA) is for the program's data: what may grow downwards is
 * not counted there. It never does: below it lies a page that nobody may touch. */
static void *map_uncounted(size_t bytes) {
  uint8_t *area = ls_mmap(NULL, GUARD + bytes, 0, 0x4022 /* PRIVATE|ANONYMOUS|NORESERVE */, -1, 0);
  if (failed(area))
    return NULL;
  void *memory = ls_mmap(area + GUARD, bytes, 3, 0x4132 /* the same, FIXED|GROWSDOWN */, -1, 0);
  if (!failed(memory))
    return memory;
  ls_munmap(area, GUARD + bytes);
  return NULL;
}

static void *map(size_t bytes) {
  bytes = (bytes + GUARD - 1) & ~(size_t)(GUARD - 1);
  size_t guard = GUARD; /* told of as well: it lies between this mapping and the next one below */
  uint8_t *memory = map_uncounted(bytes);
  if (!memory) {
    guard = 0;
    memory = ls_mmap(NULL, bytes, 3, 0x4022, -1, 0);
  }
  if (failed(memory))
    return NULL;
  ls_munlock(memory, bytes); /* locked memory is the program's to count */
  ls_private_note(memory - guard, bytes + guard);
  __atomic_fetch_add(&mapped, bytes, __ATOMIC_RELAXED);
  return memory;
}

void ls_private_unlock(void) {
  uint32_t count = own_count < LSR_OWN_RANGES ? own_count : LSR_OWN_RANGES;
  for (uint32_t i = 0; i < count; i++)
    ls_munlock((void *)own[i].start, own[i].end - own[i].start);
}

void ls_private_note(const void *start, size_t bytes) {
  uintptr_t low = (uintptr_t)start, high = low + bytes;
  ls_lock(&ls_live->own_lock);
  uint32_t last = own_count - 1;
  if (own_count && own_count <= LSR_OWN_RANGES && high == own[last].start)
    own[last].start = low; /* the kernel puts mappings below each other */
  else if (own_count++ < LSR_OWN_RANGES)
    own[own_count - 1] = (struct lsr_own_range){.start = low, .end = high};
  ls_unlock(&ls_live->own_lock);
  struct lsr_header *header = ls_own_header();
  if (header)
    ls_private_tell(header);
}

void ls_private_tell(struct lsr_header *header) {
  memcpy(header->own, own, sizeof own);
  __atomic_store_n(&header->own_count, own_count, __ATOMIC_RELEASE);
}

static bool adopted; /* all that there is, was handed over */

void ls_private_adopt(void *start, size_t bytes) {
  chunk = start;
  chunk_left = bytes;
  adopted = true;
}

/* A chunk of address space, used page by page. */
void ls_private_reserve(void) {
  if (adopted)
    return;
  for (size_t size = RESERVE; size >= LARGE; size /= 4) {
    uint8_t *fresh = map(size);
    if (!fresh)
      continue;
    ls_lock(&ls_live->private_lock);
    if (size > chunk_left) {
      chunk = fresh;
      chunk_left = size;
    }
    ls_unlock(&ls_live->private_lock);
    return;
  }
}

bool ls_private_holds(uintptr_t start, uintptr_t end) {
  uint32_t count = __atomic_load_n(&own_count, __ATOMIC_ACQUIRE);
  for (uint32_t i = 0; i < count && i < LSR_OWN_RANGES; i++)
    if (start < own[i].end && end > own[i].start)
      return true;
  return false;
}

void *ls_private(size_t bytes) {
  bytes = (bytes + 63) & ~(size_t)63;
  if (bytes > LARGE && !ls_is_sealed() && !adopted)
    return map(bytes);
  void *memory = NULL;
  ls_lock(&ls_live->private_lock);
  if (bytes > chunk_left && !adopted) {
    size_t least = (bytes + 4095) & ~(size_t)4095, size = mapped / 8 & ~(size_t)4095;
    size = size < LEAST_CHUNK ? LEAST_CHUNK : size > MOST_CHUNK ? MOST_CHUNK : size;
    size = size < least ? least : size;
    uint8_t *fresh = map(size);
    if (!fresh && size > least) { /* little address space is left */
      size = least;
      fresh = map(size);
    }
    if (fresh) {
      if (fresh + size != chunk) /* else what is left of the last one lies behind */
        chunk_left = 0;
      chunk = fresh;
      chunk_left += size;
    }
  }
  if (bytes <= chunk_left) {
    memory = chunk;
    chunk += bytes;
    chunk_left -= bytes;
  }
  ls_unlock(&ls_live->private_lock);
  return memory;
}
