// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Every operator new and delete.
 *
 * The usual ones (libstdc++, libc++) call malloc and free: the hook leaves a hint of the
 * kind and jumps, so that no frame of ours stands in the way of an exception. Allocators
 * that define the operators themselves (jemalloc, tcmalloc) do not call malloc: there the
 * hook records, without being marked busy while std::bad_alloc may fly through it.
 */
#include "hooks.h"
#include "resolve.h"

typedef struct ls_nothrow ls_nothrow;

/* Only a call that will be recorded consumes the hint. */
LS_HOT void hint(size_t size, uint8_t kind) {
  if (size >= ls_tls.sample_left)
    ls_tls.kind = 1u + kind;
}

static void record_new(void *pointer, size_t size, uint8_t kind, uintptr_t pc, uintptr_t sp,
                       uintptr_t fp) {
  if (!pointer)
    return;
  struct ls_thread *thread = ls_enter(false);
  if (!thread)
    return;
  if (thread->last_block != (uintptr_t)pointer && ls_sample_wants(thread, size))
    ls_record_alloc(thread, (uintptr_t)pointer, size, kind, pc, sp, fp);
  ls_leave();
}

static void record_delete(void *pointer) {
  if (!pointer || ls_filter_skips(pointer))
    return;
  struct ls_thread *thread = ls_enter(true);
  if (!thread)
    return;
  ls_record_free(thread, (uintptr_t)pointer);
  ls_leave();
}

#define REAL(symbol, type)                                                        \
  static void *real_cache;                                                        \
  __typeof__(type) real =                                                         \
      (__typeof__(type))__atomic_load_n(&real_cache, __ATOMIC_RELAXED);           \
  if (LS_UNLIKELY(!real) && !(real = (__typeof__(type))ls_next_symbol_cached(&real_cache, symbol)))            \
  __builtin_trap() /* nothing defines the operator: the call could not have linked */

#define NEW(id, symbol, kind, parameters, types, arguments)                       \
  LS_EXPORT void *id parameters __asm__(symbol);                                  \
  void *id parameters {                                                           \
    REAL(symbol, void *(*)types);                                                 \
    if (LS_UNLIKELY(ls_real.allocator_wraps_new)) {                               \
      void *pointer = real arguments;                                             \
      record_new(pointer, size, kind, LS_CALLER);                                 \
      return pointer;                                                             \
    }                                                                             \
    hint(size, kind);                                                             \
    return real arguments;                                                        \
  }

#define DELETE(id, symbol, parameters, types, arguments)                          \
  LS_EXPORT void id parameters __asm__(symbol);                                   \
  void id parameters {                                                            \
    REAL(symbol, void (*)types);                                                  \
    if (LS_UNLIKELY(ls_real.allocator_wraps_new))                                 \
      record_delete(pointer);                                                     \
    real arguments;                                                               \
  }

NEW(new_plain, "_Znwm", LSR_KIND_NEW, (size_t size), (size_t), (size))
NEW(new_array, "_Znam", LSR_KIND_NEW_ARRAY, (size_t size), (size_t), (size))
NEW(new_nothrow, "_ZnwmRKSt9nothrow_t", LSR_KIND_NEW, (size_t size, const ls_nothrow *tag),
    (size_t, const ls_nothrow *), (size, tag))
NEW(new_array_nothrow, "_ZnamRKSt9nothrow_t", LSR_KIND_NEW_ARRAY,
    (size_t size, const ls_nothrow *tag), (size_t, const ls_nothrow *), (size, tag))
NEW(new_aligned, "_ZnwmSt11align_val_t", LSR_KIND_NEW, (size_t size, size_t alignment),
    (size_t, size_t), (size, alignment))
NEW(new_array_aligned, "_ZnamSt11align_val_t", LSR_KIND_NEW_ARRAY,
    (size_t size, size_t alignment), (size_t, size_t), (size, alignment))
NEW(new_aligned_nothrow, "_ZnwmSt11align_val_tRKSt9nothrow_t", LSR_KIND_NEW,
    (size_t size, size_t alignment, const ls_nothrow *tag),
    (size_t, size_t, const ls_nothrow *), (size, alignment, tag))
NEW(new_array_aligned_nothrow, "_ZnamSt11align_val_tRKSt9nothrow_t", LSR_KIND_NEW_ARRAY,
    (size_t size, size_t alignment, const ls_nothrow *tag),
    (size_t, size_t, const ls_nothrow *), (size, alignment, tag))

DELETE(delete_plain, "_ZdlPv", (void *pointer), (void *), (pointer))
DELETE(delete_array, "_ZdaPv", (void *pointer), (void *), (pointer))
DELETE(delete_nothrow, "_ZdlPvRKSt9nothrow_t", (void *pointer, const ls_nothrow *tag),
       (void *, const ls_nothrow *), (pointer, tag))
DELETE(delete_array_nothrow, "_ZdaPvRKSt9nothrow_t", (void *pointer, const ls_nothrow *tag),
       (void *, const ls_nothrow *), (pointer, tag))
DELETE(delete_sized, "_ZdlPvm", (void *pointer, size_t size), (void *, size_t), (pointer, size))
DELETE(delete_array_sized, "_ZdaPvm", (void *pointer, size_t size), (void *, size_t),
       (pointer, size))
DELETE(delete_aligned, "_ZdlPvSt11align_val_t", (void *pointer, size_t alignment),
       (void *, size_t), (pointer, alignment))
DELETE(delete_array_aligned, "_ZdaPvSt11align_val_t", (void *pointer, size_t alignment),
       (void *, size_t), (pointer, alignment))
DELETE(delete_sized_aligned, "_ZdlPvmSt11align_val_t",
       (void *pointer, size_t size, size_t alignment), (void *, size_t, size_t),
       (pointer, size, alignment))
DELETE(delete_array_sized_aligned, "_ZdaPvmSt11align_val_t",
       (void *pointer, size_t size, size_t alignment), (void *, size_t, size_t),
       (pointer, size, alignment))
DELETE(delete_aligned_nothrow, "_ZdlPvSt11align_val_tRKSt9nothrow_t",
       (void *pointer, size_t alignment, const ls_nothrow *tag),
       (void *, size_t, const ls_nothrow *), (pointer, alignment, tag))
DELETE(delete_array_aligned_nothrow, "_ZdaPvSt11align_val_tRKSt9nothrow_t",
       (void *pointer, size_t alignment, const ls_nothrow *tag),
       (void *, size_t, const ls_nothrow *), (pointer, alignment, tag))
