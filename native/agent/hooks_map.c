// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Mappings that the program makes itself, and the calls that change what the agent may
 * rely on: dlclose and mlockall. What an allocator maps for its own heap
 * is its business and is not recorded.
 */
#include "aside.h"
#include "door.h"
#include "hooks.h"
#include "modules.h"
#include "process.h"
#include "ranges.h"
#include "real.h"
#include "resolve.h"
#include "rules.h"
#include "space.h"

#define MAP_FAILED_POINTER ((void *)-1)

#define REAL(type, name)          \
  static void *real_cache_##name; \
  __typeof__(type) real = (__typeof__(type))ls_next_symbol_cached(&real_cache_##name, #name)

/* A call from the allocator itself, or one we cannot record. */
static inline struct ls_thread *enter_map(uintptr_t caller, bool removing) {
  if (caller - ls_real.allocator_low < ls_real.allocator_high - ls_real.allocator_low)
    return NULL;
  return ls_enter(removing);
}

#define MAP_FIXED_FLAG 0x10

extern char __ehdr_start[], _end[];

/* The part of [start, start + length) that lies before our own code and data, and the part behind
 * it. They stay all the same: the call would return to nothing. */
struct parts {
  uintptr_t at[2];
  size_t length[2];
  bool split;
};

static struct parts around_us(uintptr_t start, size_t length) {
  uintptr_t low = (uintptr_t)__ehdr_start, high = ((uintptr_t)_end + 4095) & ~(uintptr_t)4095;
  uintptr_t end = (start + length + 4095) & ~(uintptr_t)4095;
  struct parts parts = {{start, high}, {length, 0}, false};
  if (end <= start || start & 4095 || start >= high || end <= low)
    return parts;
  parts.split = true;
  parts.length[0] = start < low ? low - start : 0;
  parts.length[1] = end > high ? end - high : 0;
  return parts;
}

#define CALLER_PC ((uintptr_t)__builtin_extract_return_addr(__builtin_return_address(0)))

static inline void mapped(struct ls_thread *thread, void *result, size_t length, uint8_t kind,
                          uintptr_t pc, uintptr_t sp, uintptr_t fp) {
  if (!thread)
    return;
  /* Mappings are few and large: they are recorded whole in sampled mode too. */
  if (result != MAP_FAILED_POINTER && !ls_paused(ls_live))
    ls_range_add(thread, (uintptr_t)result, length, kind, pc, sp, fp);
  ls_leave();
}

typedef void *(*mmap_function)(void *, size_t, int, int, int, long);

LS_EXPORT void *mmap(void *address, size_t length, int protection, int flags, int fd, long offset);
void *mmap(void *address, size_t length, int protection, int flags, int fd, long offset) {
  REAL(mmap_function, mmap);
  if (LS_UNLIKELY(flags & MAP_FIXED_FLAG))
    ls_aside_touched((uintptr_t)address, length);
  struct ls_thread *thread = enter_map(CALLER_PC, false);
  void *result = LS_REAL(real(address, length, protection, flags, fd, offset));
  mapped(thread, result, length, LSR_KIND_MMAP, LS_CALLER);
  return result;
}

LS_EXPORT void *mmap64(void *address, size_t length, int protection, int flags, int fd,
                       long offset);
void *mmap64(void *address, size_t length, int protection, int flags, int fd, long offset) {
  REAL(mmap_function, mmap64);
  if (!real)
    return mmap(address, length, protection, flags, fd, offset);
  if (LS_UNLIKELY(flags & MAP_FIXED_FLAG))
    ls_aside_touched((uintptr_t)address, length);
  struct ls_thread *thread = enter_map(CALLER_PC, false);
  void *result = LS_REAL(real(address, length, protection, flags, fd, offset));
  mapped(thread, result, length, LSR_KIND_MMAP, LS_CALLER);
  return result;
}

LS_EXPORT int munmap(void *address, size_t length);
int munmap(void *address, size_t length) {
  REAL(int (*)(void *, size_t), munmap);
  ls_aside_touched((uintptr_t)address, length);
  struct ls_thread *thread = enter_map(CALLER_PC, true);
  /* Before the call: afterwards the range may be another thread's already. */
  if (thread && !((uintptr_t)address & 4095) && length)
    ls_range_remove(thread, (uintptr_t)address, length);
  struct parts parts = around_us((uintptr_t)address, length);
  int result = !parts.split || parts.length[0] ? LS_REAL(real(address, parts.length[0])) : 0;
  if (LS_UNLIKELY(parts.split) && parts.length[1] && !result)
    result = LS_REAL(real((void *)parts.at[1], parts.length[1]));
  if (thread)
    ls_leave();
  return result;
}

LS_EXPORT int mprotect(void *address, size_t length, int protection);
int mprotect(void *address, size_t length, int protection) {
  REAL(int (*)(void *, size_t, int), mprotect);
  ls_aside_touched((uintptr_t)address, length);
  struct parts parts = around_us((uintptr_t)address, length);
  int result = !parts.split || parts.length[0] ? real(address, parts.length[0], protection) : 0;
  if (LS_UNLIKELY(parts.split) && parts.length[1] && !result)
    result = real((void *)parts.at[1], parts.length[1], protection);
  return result;
}

LS_EXPORT int pkey_mprotect(void *address, size_t length, int protection, int key);
int pkey_mprotect(void *address, size_t length, int protection, int key) {
  REAL(int (*)(void *, size_t, int, int), pkey_mprotect);
  ls_aside_touched((uintptr_t)address, length);
  return real ? real(address, length, protection, key) : -1;
}

LS_EXPORT int madvise(void *address, size_t length, int advice);
int madvise(void *address, size_t length, int advice) {
  REAL(int (*)(void *, size_t, int), madvise);
  if (ls_aside_destroys(advice))
    ls_aside_touched((uintptr_t)address, length);
  return real(address, length, advice);
}

LS_EXPORT void *mremap(void *old, size_t old_length, size_t new_length, int flags, void *fixed);
void *mremap(void *old, size_t old_length, size_t new_length, int flags, void *fixed) {
  REAL(void *(*)(void *, size_t, size_t, int, void *), mremap);
  ls_aside_touched((uintptr_t)old, old_length);
  if (flags & 2 /* FIXED */)
    ls_aside_touched((uintptr_t)fixed, new_length);
  struct ls_thread *thread = enter_map(CALLER_PC, false);
  void *result = LS_REAL(real(old, old_length, new_length, flags, fixed));
  if (thread && result != MAP_FAILED_POINTER && old_length && !(flags & 4 /* DONTUNMAP */))
    ls_range_remove(thread, (uintptr_t)old, old_length);
  mapped(thread, result, new_length, LSR_KIND_MMAP, LS_CALLER);
  return result;
}

static inline void moved_break(struct ls_thread *thread, intptr_t before, intptr_t after,
                               uintptr_t pc, uintptr_t sp, uintptr_t fp) {
  if (after > before)
    ls_range_add(thread, (uintptr_t)before, (uint64_t)(after - before), LSR_KIND_BRK, pc, sp, fp);
  else if (after < before)
    ls_range_remove(thread, (uintptr_t)after, (uint64_t)(before - after));
}

LS_EXPORT void *sbrk(intptr_t increment);
void *sbrk(intptr_t increment) {
  REAL(void *(*)(intptr_t), sbrk);
  struct ls_thread *thread = enter_map(CALLER_PC, false);
  void *before = LS_REAL(real(increment));
  if (thread) {
    if (before != MAP_FAILED_POINTER && increment)
      moved_break(thread, (intptr_t)before, (intptr_t)before + increment, LS_CALLER);
    ls_leave();
  }
  return before;
}

LS_EXPORT int brk(void *address);
int brk(void *address) {
  REAL(int (*)(void *), brk);
  static void *sbrk_cache;
  void *(*query)(intptr_t) = (void *(*)(intptr_t))ls_next_symbol_cached(&sbrk_cache, "sbrk");
  struct ls_thread *thread = enter_map(CALLER_PC, false);
  intptr_t before = thread && query ? (intptr_t)query(0) : 0;
  int result = LS_REAL(real(address));
  if (thread) {
    if (!result && before)
      moved_break(thread, before, (intptr_t)address, LS_CALLER);
    ls_leave();
  }
  return result;
}

/* Code that went away must not explain stacks that come later. Destructors run inside the
 * real call, so the thread is not marked busy there. */
LS_EXPORT int dlclose(void *handle);
int dlclose(void *handle) {
  REAL(int (*)(void *), dlclose);
  if (!real)
    return -1;
  int result = LS_REAL(real(handle));
  struct ls_thread *thread = ls_enter(true);
  if (thread) {
    if (ls_modules_rescan())
      ls_rules_clear();
    ls_leave();
  }
  return result;
}

/* Locked memory is limited: what of it is ours does not count. What was mapped from outside is
 * large, and would be in memory as a whole: it goes, and recording ends. */
LS_EXPORT int mlockall(int flags);
int mlockall(int flags) {
  REAL(int (*)(int), mlockall);
#ifdef LS_INJECT
  if (flags & 3 /* CURRENT, FUTURE */)
    ls_door_unmap();
  return LS_REAL(real(flags));
#else
  int result = real ? real(flags) : -1;
  if (!result)
    ls_unlock_own();
  return result;
#endif
}
