// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * The C allocation functions, as the program calls them. Each hook reads its caller's
 * registers, calls the real function, and records the event in the order that keeps
 * the table true: a record is removed before the real free and added after the real
 * malloc.
 */
#include "hooks.h"

#include "counters.h"
#include "process.h"
#include "real.h"
#include "record.h"
#include "sample.h"

LS_EXPORT void *malloc(size_t size);
LS_EXPORT void free(void *pointer);
LS_EXPORT void *calloc(size_t count, size_t size);
LS_EXPORT void *realloc(void *pointer, size_t size);
LS_EXPORT void *reallocarray(void *pointer, size_t count, size_t size);
LS_EXPORT int posix_memalign(void **ret, size_t alignment, size_t size);
LS_EXPORT void *aligned_alloc(size_t alignment, size_t size);
LS_EXPORT void *memalign(size_t alignment, size_t size);
LS_EXPORT void *valloc(size_t size);
LS_EXPORT void *pvalloc(size_t size);
LS_EXPORT void free_sized(void *pointer, size_t size);
LS_EXPORT void free_aligned_sized(void *pointer, size_t alignment, size_t size);
LS_EXPORT void cfree(void *pointer);

static inline uint8_t take_kind(uint8_t otherwise) {
  uint32_t kind = ls_tls.kind;
  if (LS_LIKELY(!kind))
    return otherwise;
  ls_tls.kind = 0;
  return (uint8_t)(kind - 1);
}

static __attribute__((noinline)) void *malloc_otherwise(size_t size) {
  struct ls_thread *thread = ls_enter(false);
  void *pointer = LS_REAL(ls_real.malloc(size));
  thread = ls_still(thread);
  if (LS_LIKELY(thread != NULL)) {
    if (ls_sample_wants(thread, size))
      ls_finish_alloc(thread, pointer, size, take_kind(LSR_KIND_MALLOC), LS_CALLER);
    ls_leave();
  } else {
    ls_tls.kind = 0;
  }
  return pointer;
}

/* Reached by a tail call, as is malloc_otherwise: the return address is the program's. */
static __attribute__((noinline)) void *malloc_recorded(size_t size) {
  struct ls_thread *thread = ls_enter_plain();
  if (LS_UNLIKELY(!thread))
    return malloc_otherwise(size);
  void *pointer = LS_REAL(ls_real.malloc(size));
  if (LS_UNLIKELY(!ls_still(thread)))
    return pointer;
  uint8_t kind = take_kind(LSR_KIND_MALLOC);
  if (LS_LIKELY(pointer != NULL))
    ls_record_born(thread, (uintptr_t)pointer, size, kind, LS_CALLER, true);
  else
    ls_count_drop(thread, LSR_DROP_FAILED_ALLOCATION);
  ls_leave();
  return pointer;
}

void *malloc(size_t size) {
  if (ls_sample_skips(size))
    return ls_real.malloc(size);
  return malloc_recorded(size);
}

/* The address is in no table. What is wrong with that is noted first: the allocator may abort. */
static LS_COLD void free_unknown(struct ls_thread *thread, void *pointer, uint32_t via,
                                 uintptr_t pc, uintptr_t sp, uintptr_t fp) {
  struct lsr_free_error *error = ls_free_examine(thread, (uintptr_t)pointer, via, pc, sp, fp);
  LS_REAL_VOID(ls_real.free(pointer));
  if (LS_UNLIKELY(!ls_still(thread)))
    return;
  ls_free_returned(error);
  ls_leave();
}

static __attribute__((noinline)) void free_otherwise(void *pointer) {
  uint32_t via = ls_free_via(pointer);
  struct ls_thread *thread = ls_enter(true);
  if (LS_LIKELY(thread != NULL)) {
    if (LS_UNLIKELY(!ls_record_free(thread, (uintptr_t)pointer, via, LS_CALLER))) {
      free_unknown(thread, pointer, via, LS_CALLER);
      return;
    }
    LS_REAL_VOID(ls_real.free(pointer));
    ls_leave();
    return;
  }
  if (LS_LIKELY(ls_real.free != NULL))
    LS_REAL_VOID(ls_real.free(pointer));
}

static __attribute__((noinline)) void free_recorded(void *pointer) {
  if (LS_UNLIKELY(!pointer))
    return;
  struct ls_thread *thread = ls_enter_plain();
  if (LS_UNLIKELY(!thread)) {
    free_otherwise(pointer);
    return;
  }
  /* Two cache misses at once instead of one after the other: our slot and the chunk. */
  struct ls_place place = ls_place_of((uintptr_t)pointer);
  __builtin_prefetch((char *)pointer - 16, 1);
  uint32_t via = ls_free_via(pointer);
  if (LS_UNLIKELY(!ls_record_freed(thread, place, (uintptr_t)pointer, via, LS_CALLER, true))) {
    free_unknown(thread, pointer, via, LS_CALLER);
    return;
  }
  LS_REAL_VOID(ls_real.free(pointer));
  ls_leave();
}

void free(void *pointer) {
  if (LS_LIKELY(ls_filter_skips(pointer)))
    LS_REAL_VOID(ls_real.free(pointer));
  else
    free_recorded(pointer);
}

void cfree(void *pointer) { free(pointer); }

static __attribute__((noinline)) void *calloc_recorded(size_t count, size_t size) {
  struct ls_thread *thread = ls_enter(false);
  void *pointer = LS_REAL(ls_real.calloc(count, size));
  thread = ls_still(thread);
  if (LS_LIKELY(thread != NULL)) {
    if (ls_sample_wants(thread, count * size))
      ls_finish_alloc(thread, pointer, count * size, LSR_KIND_CALLOC, LS_CALLER);
    ls_leave();
  }
  return pointer;
}

void *calloc(size_t count, size_t size) {
  if (ls_sample_skips(count * size))
    return ls_real.calloc(count, size);
  return calloc_recorded(count, size);
}

/* Common to realloc and reallocarray once the old record is out of the table. */
static inline void finish_realloc(struct ls_thread *thread, void *old, bool had,
                                  const struct lsr_block *block, void *fresh, size_t size,
                                  uintptr_t pc, uintptr_t sp, uintptr_t fp) {
  if (!fresh && size && old) {
    /* Failed: the old block is untouched. */
    if (had)
      ls_record_put_back(thread, block);
    ls_count_drop(thread, LSR_DROP_FAILED_ALLOCATION);
    return;
  }
  if (had)
    ls_record_taken_died(thread, block, fresh != old, pc, sp, fp);
  if (fresh && !ls_paused(ls_live) && ls_sample_wants(thread, size))
    ls_finish_alloc(thread, fresh, size, LSR_KIND_REALLOC, pc, sp, fp);
}

static __attribute__((noinline)) void *realloc_recorded(void *old, size_t size) {
  struct ls_thread *thread = ls_enter(true);
  struct lsr_block block;
  bool had = thread && old && ls_record_take(thread, (uintptr_t)old, &block);
  struct lsr_free_error *error = NULL;
  if (LS_UNLIKELY(!had && thread && old))
    error = ls_free_examine(thread, (uintptr_t)old, LSR_FREE_VIA_REALLOC, LS_CALLER);
  void *fresh = LS_REAL(ls_real.realloc(old, size));
  thread = ls_still(thread);
  if (LS_UNLIKELY(thread && error))
    ls_free_returned(error);
  if (LS_LIKELY(thread != NULL)) {
    finish_realloc(thread, old, had, &block, fresh, size, LS_CALLER);
    ls_leave();
  }
  return fresh;
}

void *realloc(void *old, size_t size) {
  if (ls_filter_skips(old) && ls_sample_skips(size))
    return ls_real.realloc(old, size);
  return realloc_recorded(old, size);
}

void *reallocarray(void *old, size_t count, size_t size) {
  struct ls_thread *thread = ls_enter(true);
  struct lsr_block block;
  bool had = thread && old && ls_record_take(thread, (uintptr_t)old, &block);
  struct lsr_free_error *error = NULL;
  if (!had && thread && old)
    error = ls_free_examine(thread, (uintptr_t)old, LSR_FREE_VIA_REALLOC, LS_CALLER);
  size_t total;
  void *fresh;
  if (ls_real.reallocarray)
    fresh = LS_REAL(ls_real.reallocarray(old, count, size));
  else if (__builtin_mul_overflow(count, size, &total))
    fresh = LS_REAL(ls_real.malloc(SIZE_MAX)); /* fails and sets errno */
  else
    fresh = LS_REAL(ls_real.realloc(old, total));
  if (__builtin_mul_overflow(count, size, &total))
    total = SIZE_MAX;
  thread = ls_still(thread);
  if (thread)
    ls_free_returned(error);
  if (LS_LIKELY(thread != NULL)) {
    finish_realloc(thread, old, had, &block, fresh, total, LS_CALLER);
    ls_leave();
  }
  return fresh;
}

int posix_memalign(void **ret, size_t alignment, size_t size) {
  struct ls_thread *thread = ls_enter(false);
  int error = LS_REAL(ls_real.posix_memalign(ret, alignment, size));
  thread = ls_still(thread);
  if (LS_LIKELY(thread != NULL)) {
    if (ls_sample_wants(thread, size))
      ls_finish_alloc(thread, error ? NULL : *ret, size, LSR_KIND_MEMALIGN, LS_CALLER);
    ls_leave();
  }
  return error;
}

static inline void *finish_aligned(struct ls_thread *thread, void *pointer, size_t size,
                                   uintptr_t pc, uintptr_t sp, uintptr_t fp) {
  uint8_t kind = take_kind(LSR_KIND_MEMALIGN);
  thread = ls_still(thread);
  if (LS_LIKELY(thread != NULL)) {
    if (ls_sample_wants(thread, size))
      ls_finish_alloc(thread, pointer, size, kind, pc, sp, fp);
    ls_leave();
  }
  return pointer;
}

void *aligned_alloc(size_t alignment, size_t size) {
  struct ls_thread *thread = ls_enter(false);
  void *pointer = LS_REAL(ls_real.aligned_alloc(alignment, size));
  return finish_aligned(thread, pointer, size, LS_CALLER);
}

void *memalign(size_t alignment, size_t size) {
  struct ls_thread *thread = ls_enter(false);
  void *pointer = LS_REAL(ls_real.memalign ? ls_real.memalign(alignment, size)
                                           : ls_real.aligned_alloc(alignment, size));
  return finish_aligned(thread, pointer, size, LS_CALLER);
}

void *valloc(size_t size) {
  struct ls_thread *thread = ls_enter(false);
  void *pointer = LS_REAL(ls_real.valloc ? ls_real.valloc(size) : ls_real.aligned_alloc(4096, size));
  return finish_aligned(thread, pointer, size, LS_CALLER);
}

void *pvalloc(size_t size) {
  struct ls_thread *thread = ls_enter(false);
  size_t whole = (size + 4095) & ~(size_t)4095;
  void *pointer = LS_REAL(ls_real.pvalloc ? ls_real.pvalloc(size) : ls_real.aligned_alloc(4096, whole));
  return finish_aligned(thread, pointer, whole, LS_CALLER);
}

/* Before the real free of C23's. Returns what is wrong with it, NULL when nothing is known to be. */
static struct lsr_free_error *record_sized(struct ls_thread *thread, void *pointer, uintptr_t pc,
                                           uintptr_t sp, uintptr_t fp) {
  if (!thread || !pointer ||
      ls_record_free(thread, (uintptr_t)pointer, LSR_FREE_VIA_FREE, pc, sp, fp))
    return NULL;
  return ls_free_examine(thread, (uintptr_t)pointer, LSR_FREE_VIA_FREE, pc, sp, fp);
}

void free_sized(void *pointer, size_t size) {
  struct ls_thread *thread = ls_enter(true);
  struct lsr_free_error *error = record_sized(thread, pointer, LS_CALLER);
  if (ls_real.free_sized)
    LS_REAL_VOID(ls_real.free_sized(pointer, size));
  else
    LS_REAL_VOID(ls_real.free(pointer));
  if (!ls_still(thread))
    return;
  ls_free_returned(error);
  ls_leave();
}

void free_aligned_sized(void *pointer, size_t alignment, size_t size) {
  struct ls_thread *thread = ls_enter(true);
  struct lsr_free_error *error = record_sized(thread, pointer, LS_CALLER);
  if (ls_real.free_aligned_sized)
    LS_REAL_VOID(ls_real.free_aligned_sized(pointer, alignment, size));
  else
    LS_REAL_VOID(ls_real.free(pointer));
  if (!ls_still(thread))
    return;
  ls_free_returned(error);
  ls_leave();
}
