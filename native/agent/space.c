// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * The recording's address space: no more of it than is in use.
 *
 * A reservation counts against the address-space limit, against the limit of locked memory
 * once the program locks all of it, and is populated then; and such a limit may be set at any
 * time, by anybody. So each area is a mapping of its own that grows with mremap, for which no
 * descriptor is needed. They lie far from everything else, at the distances that they have in
 * the file, so there is room to grow where they are. Where there is none after all, mremap of
 * no bytes makes a longer mapping of the same pages elsewhere; the shorter one stays, as
 * another thread may be using it.
 *
 * Every page is promised by the kernel before it is used: a full disk is an error code and
 * never a SIGBUS in the host.
 */
#include "space.h"

#include "apart.h"
#include "counters.h"
#include "private.h"
#include "process.h"
#include "recording_file.h"
#include "seal.h"
#include "str.h"
#include "sys.h"

#define PAGE 4096ull
#define ROUND_UP(x) (((x) + PAGE - 1) & ~(PAGE - 1))

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

enum {
  LS_ERR_INVAL = 22,
  ADVISE_RANDOM = 1,
  ADVISE_DONTNEED = 4,
  ADVISE_REMOVE = 9,
  ADVISE_DONTDUMP = 16,
  ADVISE_COLD = 20, /* Linux 5.4 */
};

#define FAR (64ull << 30) /* from where the kernel puts mappings by itself */
#define MAX_LEFT 64u      /* mappings that were replaced by longer ones */
#define MAX_EXTENTS 256u
#define LARGEST_STEP (1ull << 20) /* the heap's mapping grows by a sixteenth of it, at most so much */

struct window {
  uint8_t *base;
  uint64_t offset, bytes; /* in the file; bytes that are mapped */
};

/* A part of the heap that was given back: zeros. */
struct extent {
  uint8_t *at;
  uint64_t offset, bytes;
};

/* Copied by fork, as the mappings are. */
static struct {
  struct window head, tables[LS_TABLES], heap;
  struct window left[MAX_LEFT];
  uint32_t left_count, extent_count;
  struct extent extents[MAX_EXTENTS]; /* by offset */
} space;

/* Of the heap, backed by ls_recording_reserve(). */
static struct extent ready;

static bool failed(const void *address) {
  return (intptr_t)address <= 0 && (intptr_t)address >= -4095;
}

/* All there are: LS_TABLES + 2 + left_count. */
static struct window *window_of(uint32_t i) {
  return i == 0              ? &space.head
         : i == 1            ? &space.heap
         : i < LS_TABLES + 2 ? &space.tables[i - 2]
                             : &space.left[i - 2 - LS_TABLES];
}

static void unmap(struct window *window) {
  if (window->base)
    ls_munmap(window->base, window->bytes);
  window->base = NULL;
}

/* Without reading ahead: what is read ahead pushes out, under a memory limit, what is needed
 * next, and the program spins instead of being killed. */
static void advise(const struct window *window) {
  ls_madvise(window->base, window->bytes, ADVISE_RANDOM);
  ls_madvise(window->base, window->bytes, ADVISE_DONTDUMP);
}

/* In the place of what `window` was in the parent of a fork, if that is the same part. */
static bool map(struct window *window, uintptr_t hint, int fd, uint64_t offset, uint64_t bytes) {
  int flags = 1 /* SHARED */;
  if (window->base && window->offset == offset && window->bytes >= bytes) {
    hint = (uintptr_t)window->base;
    flags |= 0x10 /* FIXED */;
    if (window->bytes > bytes)
      ls_munmap(window->base + bytes, window->bytes - bytes);
  } else {
    unmap(window);
  }
  uint8_t *base = ls_mmap((void *)hint, bytes, 3 /* READ|WRITE */, flags, fd, (int64_t)offset);
  if (failed(base)) {
    if (window->base)
      window->bytes = bytes; /* what is left there */
    return false;
  }
  *window = (struct window){.base = base, .offset = offset, .bytes = bytes};
  if (bytes > PAGE) { /* else when it grows: a page is nothing, and each child of a fork begins so */
    advise(window);
    ls_munlock(base, bytes);
  }
  return true;
}

static void unmap_left(void) {
  for (uint32_t i = 0; i < space.left_count; i++)
    unmap(&space.left[i]);
  space.left_count = space.extent_count = 0;
  ready.bytes = 0;
}

void ls_space_unmap(void) {
  unmap(&space.head);
  unmap(&space.heap);
  for (uint32_t i = 0; i < LS_TABLES; i++)
    unmap(&space.tables[i]);
  unmap_left();
}

/* Of our own object file; the linker says where it is. */
extern const char __ehdr_start[] __attribute__((visibility("hidden")));
extern const char _end[] __attribute__((visibility("hidden")));

static void unlock(const struct window *window) {
  if (window->base)
    ls_munlock(window->base, window->bytes);
}

/* After each growth, too: the program may have locked all its memory by a call that no hook sees.
 * The kernel refuses to let go of locked memory: one question tells. */
void ls_unlock_own(void) {
  const struct window *window = &space.tables[LS_MODULES];
  if (window->base && ls_madvise(window->base, PAGE, ADVISE_COLD) == 0)
    return;
  uintptr_t start = (uintptr_t)__ehdr_start & ~(uintptr_t)(PAGE - 1);
  ls_munlock((void *)start, (uintptr_t)_end - start);
  ls_private_unlock();
  unlock(&space.head);
  unlock(&space.heap);
  for (uint32_t i = 0; i < LS_TABLES; i++)
    unlock(&space.tables[i]);
  for (uint32_t i = 0; i < space.left_count; i++)
    unlock(&space.left[i]);
}

static void tell(struct ls_live *live) {
  struct window *tables = space.tables;
  __atomic_store_n(&live->modules, (struct lsr_module *)tables[LS_MODULES].base, __ATOMIC_RELEASE);
  __atomic_store_n(&live->strings, (char *)tables[LS_STRINGS].base, __ATOMIC_RELEASE);
  __atomic_store_n(&live->nodes, (struct lsr_node *)tables[LS_NODES].base, __ATOMIC_RELEASE);
  __atomic_store_n(&live->sites, (struct lsr_site *)tables[LS_SITES].base, __ATOMIC_RELEASE);
  __atomic_store_n(&live->ranges, (struct lsr_range *)tables[LS_RANGES].base, __ATOMIC_RELEASE);
  __atomic_store_n(&live->chunks, (struct lsr_chunk *)tables[LS_CHUNKS].base, __ATOMIC_RELEASE);
}

struct lsr_header *ls_space_map(struct ls_live *live, int fd, const struct lsr_header *plan) {
  unmap_left();
  uint64_t head = plan->stripes.offset + LSR_STRIPES * LSR_STRIPE_HEAD_BYTES;
  if (!map(&space.head, 0, fd, 0, head))
    return NULL;
  uintptr_t base = (uintptr_t)space.head.base;
  base = base > 2 * FAR ? base - FAR : 0;
  const struct lsr_area *areas = &plan->modules;
  bool ok = map(&space.heap, base ? base + plan->bump : 0, fd, plan->bump, PAGE);
  for (uint32_t i = 0; i < LS_TABLES && ok; i++)
    ok = map(&space.tables[i], base ? base + areas[i].offset : 0, fd, areas[i].offset, PAGE);
  if (!ok) {
    ls_space_unmap();
    return NULL;
  }
  tell(live);
  live->stripes = space.head.base + plan->stripes.offset;
  return (struct lsr_header *)space.head.base;
}

struct lsr_header *ls_space_adopt(struct ls_live *live, uint8_t *base, const struct lsr_header *plan) {
  const struct lsr_area *areas = &plan->modules;
  uint64_t head = plan->stripes.offset + LSR_STRIPES * LSR_STRIPE_HEAD_BYTES;
  space.head = (struct window){.base = base, .offset = 0, .bytes = head};
  for (uint32_t i = 0; i < LS_TABLES; i++)
    space.tables[i] = (struct window){
        .base = base + areas[i].offset, .offset = areas[i].offset, .bytes = areas[i].reserved};
  space.heap = (struct window){
      .base = base + plan->bump, .offset = plan->bump, .bytes = plan->file_bytes - plan->bump};
  tell(live);
  live->stripes = base + plan->stripes.offset;
  return (struct lsr_header *)base;
}

/* Kernel before 5.14: reserve through the file, if it can still be reached and is ours. */
static long reserve_part(void *argument) {
  const struct window *part = argument;
  int fd = ls_recording_open();
  if (fd < 0)
    return fd;
  long rc = ls_fallocate(fd, 0, (int64_t)part->offset, (int64_t)part->bytes);
  ls_close(fd);
  return rc;
}

static LS_COLD bool back_by_file(uint64_t offset, uint64_t bytes) {
  struct window part = {.offset = offset, .bytes = bytes};
  return ls_apart(reserve_part, &part) == 0;
}

bool ls_space_back(struct lsr_header *header, void *start, uint64_t offset, uint64_t bytes) {
  if (header->budget_bytes && header->backed_bytes + bytes > header->budget_bytes)
    return false;
  long rc = ls_madvise(start, bytes, MADV_POPULATE_WRITE);
  if (rc < 0 && (rc != -LS_ERR_INVAL || !back_by_file(offset, bytes)))
    return false;
  header->backed_bytes += bytes;
  return true;
}

bool ls_stripe_back(uint32_t stripe) {
  struct ls_live *live = ls_live;
  if (live->stripes_backed >> stripe & 1)
    return true;
  uint64_t at = stripe * LSR_STRIPE_HEAD_BYTES;
  ls_lock(&live->grow_lock);
  bool ok = live->stripes_backed >> stripe & 1;
  if (!ok && ls_space_back(live->header, live->stripes + at, live->header->stripes.offset + at,
                           LSR_STRIPE_HEAD_BYTES)) {
    ok = true;
    live->stripes_backed |= 1u << stripe;
  }
  ls_unlock(&live->grow_lock);
  return ok;
}

static long map_privately(void *unused) {
  (void)unused;
  int fd = ls_recording_open();
  if (fd < 0)
    return fd;
  for (uint32_t i = 0; i < LS_TABLES + 2 + space.left_count; i++) {
    const struct window *window = window_of(i);
    if (window->base)
      ls_mmap(window->base, window->bytes, 3, 0x12 /* PRIVATE|FIXED */, fd, (int64_t)window->offset);
  }
  return ls_close(fd);
}

void ls_space_leave_to_parent(void) { ls_apart(map_privately, NULL); }

static bool leave_behind(const struct window *window) {
  if (space.left_count == MAX_LEFT)
    return false;
  space.left[space.left_count++] = *window;
  return true;
}

/* Make a table's window longer, with its first byte at the same place of the file. */
static bool extend(struct window *window, uint64_t bytes) {
  if (!failed(ls_mremap(window->base, window->bytes, bytes, 0))) {
    bool first = window->bytes == PAGE;
    window->bytes = bytes;
    if (first)
      advise(window);
    ls_unlock_own();
    return true;
  }
  if (space.left_count == MAX_LEFT)
    return false;
  uint8_t *longer = ls_mremap(window->base, 0, bytes, 1 /* MAYMOVE */);
  if (failed(longer))
    return false;
  leave_behind(window);
  ls_madvise(window->base, window->bytes, ADVISE_DONTNEED); /* its pages count once */
  window->base = longer;
  window->bytes = bytes;
  advise(window);
  ls_unlock_own();
  return true;
}

bool ls_area_grow(struct lsr_area *area, uint64_t needed) {
  if (LS_LIKELY(needed <= __atomic_load_n(&area->used, __ATOMIC_ACQUIRE)))
    return true;
  if (needed > area->reserved)
    return false;
  struct ls_live *live = ls_live;
  struct window *window = &space.tables[area - &live->header->modules];
  ls_lock(&live->grow_lock);
  bool ok = true;
  if (needed > area->used) {
    uint64_t target = area->used + area->used / 2;
    if (target < needed)
      target = needed;
    target = ROUND_UP(target);
    if (target > area->reserved)
      target = area->reserved;
    ok = (target <= window->bytes || extend(window, target)) &&
         ls_space_back(live->header, window->base + area->used, area->offset + area->used,
                       target - area->used);
    if (ok) {
      tell(live);
      __atomic_store_n(&area->used, target, __ATOMIC_RELEASE);
    }
  }
  ls_unlock(&live->grow_lock);
  if (!ok)
    ls_count_drop_anywhere(LSR_DROP_NO_SPACE);
  return ok;
}

/* ---- the heap ---- */

/* Of the parts that were given back, the smallest that is large enough. */
static uint8_t *take_extent(struct lsr_header *header, uint64_t bytes, uint64_t *ret_offset) {
  struct extent *best = NULL;
  for (uint32_t i = 0; i < space.extent_count; i++) {
    struct extent *extent = &space.extents[i];
    if (extent->bytes >= bytes && (!best || extent->bytes < best->bytes))
      best = extent;
  }
  if (!best || !ls_space_back(header, best->at, best->offset, bytes))
    return NULL;
  uint8_t *at = best->at;
  *ret_offset = best->offset;
  best->at += bytes;
  best->offset += bytes;
  best->bytes -= bytes;
  if (!best->bytes) {
    space.extent_count--;
    memmove(best, best + 1, (size_t)(space.extents + space.extent_count - best) * sizeof *best);
  }
  return at;
}

/* Have [bump, bump + bytes) mapped in one piece. */
static bool heap_extend(struct lsr_header *header, uint64_t bytes) {
  struct window *heap = &space.heap;
  uint64_t used = header->bump - heap->offset;
  uint64_t step = (header->bump - header->chunks.offset - header->chunks.reserved) / 16;
  if (used + bytes <= heap->bytes)
    return true;
  step = step < PAGE ? PAGE : step > LARGEST_STEP ? LARGEST_STEP : step & ~(PAGE - 1);
  uint64_t most = header->file_bytes - heap->offset, wanted = used + bytes + step;
  if (wanted > most)
    wanted = most;
  if (!failed(ls_mremap(heap->base, heap->bytes, wanted, 0))) {
    bool first = heap->bytes == PAGE;
    heap->bytes = wanted;
    if (first)
      advise(heap);
    ls_unlock_own();
    return true;
  }
  /* Another window that begins at a page of this one. */
  uint64_t anchor = used < heap->bytes ? used : heap->bytes - PAGE;
  if (space.left_count == MAX_LEFT)
    return false;
  step = space.left_count < 4 ? step : LARGEST_STEP * 16; /* few windows */
  uint64_t longer = used + bytes - anchor;
  longer = heap->offset + anchor + longer + step <= header->file_bytes ? longer + step : longer;
  uint8_t *base = ls_mremap(heap->base + anchor, 0, longer, 1 /* MAYMOVE */);
  if (failed(base))
    return false;
  ls_munlock(base, longer);
  leave_behind(heap);
  *heap = (struct window){.base = base, .offset = heap->offset + anchor, .bytes = longer};
  advise(heap);
  return true;
}

uint8_t *ls_heap_take(uint64_t bytes, uint64_t *ret_offset) {
  struct ls_live *live = ls_live;
  struct lsr_header *header = live->header;
  bytes = ROUND_UP(bytes);
  ls_lock(&live->grow_lock);
  if (LS_UNLIKELY(ready.bytes >= bytes)) {
    uint8_t *taken = ready.at;
    *ret_offset = ready.offset;
    ready.at += bytes;
    ready.offset += bytes;
    ready.bytes -= bytes;
    ls_unlock(&live->grow_lock);
    return taken;
  }
  uint8_t *at = take_extent(header, bytes, ret_offset);
  uint64_t offset = header->bump;
  if (!at && bytes <= header->file_bytes && offset <= header->file_bytes - bytes &&
      heap_extend(header, bytes)) {
    uint8_t *fresh = space.heap.base + (offset - space.heap.offset);
    if (ls_space_back(header, fresh, offset, bytes)) {
      at = fresh;
      *ret_offset = offset;
      header->bump = offset + bytes;
    }
  }
  ls_unlock(&live->grow_lock);
  if (!at)
    ls_count_drop_anywhere(LSR_DROP_NO_SPACE);
  return at;
}

static bool follows(const struct extent *one, const struct extent *other) {
  return one->offset + one->bytes == other->offset && one->at + one->bytes == other->at;
}

static void put_extent(struct extent fresh) {
  struct extent *extents = space.extents;
  uint32_t count = space.extent_count, i = 0;
  while (i < count && extents[i].offset < fresh.offset)
    i++;
  if (i > 0 && follows(&extents[i - 1], &fresh)) {
    extents[i - 1].bytes += fresh.bytes;
    if (i < count && follows(&extents[i - 1], &extents[i])) {
      extents[i - 1].bytes += extents[i].bytes;
      memmove(extents + i, extents + i + 1, (count - i - 1) * sizeof *extents);
      space.extent_count--;
    }
    return;
  }
  if (i < count && follows(&fresh, &extents[i])) {
    fresh.bytes += extents[i].bytes;
    extents[i] = fresh;
    return;
  }
  if (count == MAX_EXTENTS)
    return; /* a hole in the file that is not used again */
  memmove(extents + i + 1, extents + i, (count - i) * sizeof *extents);
  extents[i] = fresh;
  space.extent_count++;
}

/* Who reads the recording meanwhile looks afterwards whether what it read was still in use. */
void ls_heap_release(uint8_t *at, uint64_t offset, uint64_t bytes) {
  if ((offset | bytes) & (PAGE - 1))
    return;
  struct ls_live *live = ls_live;
  bool hole = ls_madvise(at, bytes, ADVISE_REMOVE) == 0;
  if (!hole) /* locked, or a file system without holes */
    memset(at, 0, bytes);
  ls_lock(&live->grow_lock);
  live->header->backed_bytes -= bytes;
  put_extent((struct extent){.at = at, .offset = offset, .bytes = bytes});
  ls_unlock(&live->grow_lock);
}

bool ls_space_holds(uintptr_t start, uintptr_t end) {
  for (uint32_t i = 0; i < LS_TABLES + 2 + space.left_count; i++) {
    const struct window *window = window_of(i);
    if (window->base && start < (uintptr_t)window->base + window->bytes &&
        end > (uintptr_t)window->base)
      return true;
  }
  return false;
}

/* So much comes on top of what there is, when no more can be had later. */
#define RESERVE_SITES 4096u
#define RESERVE_HEAP (8ull << 20)

void ls_recording_reserve(void) {
  struct ls_live *live = ls_live;
  struct lsr_header *header = live->header;
  ls_area_grow(&header->sites, (header->site_count + (uint64_t)RESERVE_SITES) * sizeof(struct lsr_site));
  ls_area_grow(&header->nodes, (header->node_count + 4ull * RESERVE_SITES) * sizeof(struct lsr_node));
  ls_area_grow(&header->ranges, (header->range_slots + 1024ull) * sizeof(struct lsr_range));
  ls_area_grow(&header->chunks, (header->chunk_count + 1024ull) * sizeof(struct lsr_chunk));
  for (uint32_t s = 0; s <= LSR_EXCLUSIVE_STRIPES; s++)
    ls_stripe_back(s);
  for (uint64_t bytes = RESERVE_HEAP; bytes >= PAGE * 16; bytes /= 2) {
    uint64_t offset;
    uint8_t *at = ls_heap_take(bytes, &offset);
    if (at) {
      ls_lock(&live->grow_lock);
      ready = (struct extent){.at = at, .offset = offset, .bytes = bytes};
      ls_unlock(&live->grow_lock);
      return;
    }
  }
}
