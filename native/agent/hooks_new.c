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
#include "real.h"
#include "record.h"
#include "resolve.h"
#include "sample.h"
#include "thread.h"

typedef struct ls_nothrow ls_nothrow;

/* Only a call that will be recorded consumes the hint. operator new[] calls operator new with the
 * same size: it stays new[]. */
LS_HOT void hint(size_t size, uint8_t kind) {
  if (size < ls_tls.sample_left)
    return;
  if (kind == LSR_KIND_NEW_ARRAY)
    ls_tls.kind_size = size;
  else if (ls_tls.kind == 1u + LSR_KIND_NEW_ARRAY && ls_tls.kind_size == size)
    return;
  ls_tls.kind = 1u + kind;
}

/* The same for delete[] and delete. Only a free that looks for a record consumes it. */
LS_HOT void hint_free(const void *pointer, uint32_t via) {
  uintptr_t address = (uintptr_t)pointer;
  if (via == LSR_FREE_VIA_DELETE && ls_tls.deleted == address + LSR_FREE_VIA_DELETE_ARRAY)
    return;
  ls_tls.deleted = !pointer || ls_filter_skips(pointer) ? 0 : address + via;
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

static void record_delete(void *pointer, uint32_t via, uintptr_t pc, uintptr_t sp, uintptr_t fp) {
  if (!pointer || ls_filter_skips(pointer))
    return;
  struct ls_thread *thread = ls_enter(true);
  if (!thread)
    return;
  if (ls_record_free(thread, (uintptr_t)pointer, via, pc, sp, fp))
    ls_free_deleted(thread, (uintptr_t)pointer);
  else
    ls_free_examine(thread, (uintptr_t)pointer, via, pc, sp, fp);
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
      void *pointer = LS_REAL(real arguments);                                    \
      record_new(pointer, size, kind, LS_CALLER);                                 \
      return pointer;                                                             \
    }                                                                             \
    hint(size, kind);                                                             \
    return real arguments;                                                        \
  }

#ifdef LS_INJECT
/* No unwinder knows code that was mapped by hand: nothing may throw through it. The one that gives
 * NULL is called, and when it does, the one that throws takes our place. */
#define NEW_THROWING(id, symbol, kind, parameters, types, arguments, quiet_types, quiet_arguments) \
  LS_EXPORT void *id parameters __asm__(symbol);                                                   \
  void *id parameters {                                                                            \
    REAL(symbol, void *(*)types);                                                                  \
    if (LS_UNLIKELY(ls_real.allocator_wraps_new)) {                                                \
      static void *quiet_cache;                                                                    \
      static const char tag; /* std::nothrow_t has no members */                                   \
      void *(*quiet) quiet_types = (__typeof__(quiet))ls_next_symbol_cached(                       \
          &quiet_cache, symbol "RKSt9nothrow_t");                                                  \
      void *pointer = quiet ? LS_REAL(quiet quiet_arguments) : NULL;                               \
      if (LS_LIKELY(pointer != NULL)) {                                                            \
        record_new(pointer, size, kind, LS_CALLER);                                                \
        return pointer;                                                                            \
      }                                                                                            \
    } else {                                                                                       \
      hint(size, kind);                                                                            \
    }                                                                                              \
    return real arguments;                                                                         \
  }
#else
#define NEW_THROWING(id, symbol, kind, parameters, types, arguments, quiet_types, quiet_arguments) \
  NEW(id, symbol, kind, parameters, types, arguments)
#endif

#define DELETE(id, symbol, via, parameters, types, arguments)                     \
  LS_EXPORT void id parameters __asm__(symbol);                                   \
  void id parameters {                                                            \
    REAL(symbol, void (*)types);                                                  \
    if (LS_UNLIKELY(ls_real.allocator_wraps_new))                                 \
      record_delete(pointer, via, LS_CALLER);                                     \
    else                                                                          \
      hint_free(pointer, via);                                                    \
    real arguments;                                                               \
  }

#define QUIET (const ls_nothrow *)&tag
NEW_THROWING(new_plain, "_Znwm", LSR_KIND_NEW, (size_t size), (size_t), (size),
             (size_t, const ls_nothrow *), (size, QUIET))
NEW_THROWING(new_array, "_Znam", LSR_KIND_NEW_ARRAY, (size_t size), (size_t), (size),
             (size_t, const ls_nothrow *), (size, QUIET))
NEW(new_nothrow, "_ZnwmRKSt9nothrow_t", LSR_KIND_NEW, (size_t size, const ls_nothrow *tag),
    (size_t, const ls_nothrow *), (size, tag))
NEW(new_array_nothrow, "_ZnamRKSt9nothrow_t", LSR_KIND_NEW_ARRAY,
    (size_t size, const ls_nothrow *tag), (size_t, const ls_nothrow *), (size, tag))
NEW_THROWING(new_aligned, "_ZnwmSt11align_val_t", LSR_KIND_NEW, (size_t size, size_t alignment),
             (size_t, size_t), (size, alignment), (size_t, size_t, const ls_nothrow *),
             (size, alignment, QUIET))
NEW_THROWING(new_array_aligned, "_ZnamSt11align_val_t", LSR_KIND_NEW_ARRAY,
             (size_t size, size_t alignment), (size_t, size_t), (size, alignment),
             (size_t, size_t, const ls_nothrow *), (size, alignment, QUIET))
NEW(new_aligned_nothrow, "_ZnwmSt11align_val_tRKSt9nothrow_t", LSR_KIND_NEW,
    (size_t size, size_t alignment, const ls_nothrow *tag),
    (size_t, size_t, const ls_nothrow *), (size, alignment, tag))
NEW(new_array_aligned_nothrow, "_ZnamSt11align_val_tRKSt9nothrow_t", LSR_KIND_NEW_ARRAY,
    (size_t size, size_t alignment, const ls_nothrow *tag),
    (size_t, size_t, const ls_nothrow *), (size, alignment, tag))

DELETE(delete_plain, "_ZdlPv", LSR_FREE_VIA_DELETE, (void *pointer), (void *), (pointer))
DELETE(delete_array, "_ZdaPv", LSR_FREE_VIA_DELETE_ARRAY, (void *pointer), (void *), (pointer))
DELETE(delete_nothrow, "_ZdlPvRKSt9nothrow_t", LSR_FREE_VIA_DELETE, (void *pointer, const ls_nothrow *tag),
       (void *, const ls_nothrow *), (pointer, tag))
DELETE(delete_array_nothrow, "_ZdaPvRKSt9nothrow_t", LSR_FREE_VIA_DELETE_ARRAY, (void *pointer, const ls_nothrow *tag),
       (void *, const ls_nothrow *), (pointer, tag))
DELETE(delete_sized, "_ZdlPvm", LSR_FREE_VIA_DELETE, (void *pointer, size_t size), (void *, size_t), (pointer, size))
DELETE(delete_array_sized, "_ZdaPvm", LSR_FREE_VIA_DELETE_ARRAY, (void *pointer, size_t size), (void *, size_t),
       (pointer, size))
DELETE(delete_aligned, "_ZdlPvSt11align_val_t", LSR_FREE_VIA_DELETE, (void *pointer, size_t alignment),
       (void *, size_t), (pointer, alignment))
DELETE(delete_array_aligned, "_ZdaPvSt11align_val_t", LSR_FREE_VIA_DELETE_ARRAY, (void *pointer, size_t alignment),
       (void *, size_t), (pointer, alignment))
DELETE(delete_sized_aligned, "_ZdlPvmSt11align_val_t", LSR_FREE_VIA_DELETE,
       (void *pointer, size_t size, size_t alignment), (void *, size_t, size_t),
       (pointer, size, alignment))
DELETE(delete_array_sized_aligned, "_ZdaPvmSt11align_val_t", LSR_FREE_VIA_DELETE_ARRAY,
       (void *pointer, size_t size, size_t alignment), (void *, size_t, size_t),
       (pointer, size, alignment))
DELETE(delete_aligned_nothrow, "_ZdlPvSt11align_val_tRKSt9nothrow_t", LSR_FREE_VIA_DELETE,
       (void *pointer, size_t alignment, const ls_nothrow *tag),
       (void *, size_t, const ls_nothrow *), (pointer, alignment, tag))
DELETE(delete_array_aligned_nothrow, "_ZdaPvSt11align_val_tRKSt9nothrow_t", LSR_FREE_VIA_DELETE_ARRAY,
       (void *pointer, size_t alignment, const ls_nothrow *tag),
       (void *, size_t, const ls_nothrow *), (pointer, alignment, tag))
