// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Memory of the agent's own, apart from the recording. It holds stale copies of the
 * program's registers and stack, so the recording says where it is: a scan for pointers
 * that took it for the program's would find lost blocks reachable.
 */
#include "agent.h"
#include "seal.h"
#include "str.h"
#include "sys.h"

/* Requests share mappings, each twice as large as the one before: few ranges to tell of. */
#define FIRST_CHUNK (1u << 20)
#define LAST_CHUNK (16u << 20)
#define RESERVE (32u << 20) /* some fifty threads, with their stacks and the indexes of the depot */

/* Copied by fork, as the mappings are. */
static struct lsr_own_range own[LSR_OWN_RANGES];
static uint32_t own_count;
static uint8_t *chunk;
static size_t chunk_left, chunk_next = FIRST_CHUNK;

static void *map(size_t bytes) {
  void *memory = ls_mmap(NULL, bytes, 3, 0x4022 /* PRIVATE|ANONYMOUS|NORESERVE */, -1, 0);
  if ((intptr_t)memory <= 0 && (intptr_t)memory >= -4095)
    return NULL;
  ls_private_note(memory, bytes);
  return memory;
}

void ls_private_note(const void *start, size_t bytes) {
  uint32_t index = __atomic_fetch_add(&own_count, 1, __ATOMIC_RELAXED);
  if (index < LSR_OWN_RANGES) {
    own[index].start = (uintptr_t)start;
    own[index].end = (uintptr_t)start + bytes;
  }
  if (ls_live->header)
    ls_private_tell(ls_live->header);
}

void ls_private_tell(struct lsr_header *header) {
  memcpy(header->own, own, sizeof own);
  __atomic_store_n(&header->own_count, own_count, __ATOMIC_RELEASE);
}

/* A chunk of address space, used page by page. */
void ls_private_reserve(void) {
  for (size_t size = RESERVE; size >= FIRST_CHUNK; size /= 4) {
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
  if (bytes > LAST_CHUNK / 4 && !ls_is_sealed())
    return map(bytes);
  void *memory = NULL;
  ls_lock(&ls_live->private_lock);
  if (bytes > chunk_left) {
    size_t size = chunk_next > bytes ? chunk_next : LAST_CHUNK;
    uint8_t *fresh = map(size);
    if (!fresh) { /* little address space is left */
      size = (bytes + 4095) & ~(size_t)4095;
      fresh = map(size);
    }
    if (fresh) {
      chunk = fresh;
      chunk_left = size;
      if (chunk_next < LAST_CHUNK)
        chunk_next *= 2;
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
