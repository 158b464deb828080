// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Ways around the hooks that the loader itself offers: an object opened with RTLD_DEEPBIND
 * binds to the C library's malloc and free first (PHP's extensions), and dlsym on a handle of
 * the C library returns them (ctypes, JNA). The first is mended in the object's own slots as
 * soon as somebody asks for one of its functions, the second where it is asked.
 *
 * Both functions find out who calls them from the return address, so where that matters the
 * real one is reached by a jump.
 */
#include "hooks.h"
#include "loader.h"
#include "process.h"
#include "real.h"
#include "resolve.h"
#include "sys.h"

#define RTLD_DEEPBIND 8
#define PAGE 4096ull

#ifdef __x86_64__
enum { JUMP_SLOT = R_X86_64_JUMP_SLOT, GLOB_DAT = R_X86_64_GLOB_DAT, WORD = R_X86_64_64 };
#else
enum { JUMP_SLOT = R_AARCH64_JUMP_SLOT, GLOB_DAT = R_AARCH64_GLOB_DAT, WORD = R_AARCH64_ABS64 };
#endif

extern void *malloc(size_t);
extern void free(void *);
extern void *calloc(size_t, size_t);
extern void *realloc(void *, size_t);
extern void *reallocarray(void *, size_t, size_t);
extern int posix_memalign(void **, size_t, size_t);
extern void *aligned_alloc(size_t, size_t);
extern void *memalign(size_t, size_t);
extern void *valloc(size_t);
extern void *pvalloc(size_t);

/* Our function for one of the allocator's, NULL: it is none of those that are hooked. */
static void *hook_of(const void *real) {
  const struct {
    const void *real;
    void *hook;
  } pairs[] = {
      {(const void *)ls_real.malloc, (void *)malloc},
      {(const void *)ls_real.free, (void *)free},
      {(const void *)ls_real.calloc, (void *)calloc},
      {(const void *)ls_real.realloc, (void *)realloc},
      {(const void *)ls_real.reallocarray, (void *)reallocarray},
      {(const void *)ls_real.posix_memalign, (void *)posix_memalign},
      {(const void *)ls_real.aligned_alloc, (void *)aligned_alloc},
      {(const void *)ls_real.memalign, (void *)memalign},
      {(const void *)ls_real.valloc, (void *)valloc},
      {(const void *)ls_real.pvalloc, (void *)pvalloc},
  };
  if (!real)
    return NULL;
  for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
    if (pairs[i].real == real)
      return pairs[i].hook;
  return NULL;
}

/* ---- slots that were bound past us ---- */

static uint32_t opened_deep; /* objects may have such slots */

static void patch(uintptr_t slot, uintptr_t relro_low, uintptr_t relro_high) {
  void **at = (void **)slot;
  void *hook = hook_of(__atomic_load_n(at, __ATOMIC_RELAXED));
  if (!hook)
    return;
  bool sealed = slot >= relro_low && slot < relro_high;
  void *page = (void *)(slot & ~(PAGE - 1));
  if (sealed && ls_mprotect(page, PAGE, 3 /* READ|WRITE */) < 0)
    return;
  __atomic_store_n(at, hook, __ATOMIC_RELAXED);
  if (sealed)
    ls_mprotect(page, PAGE, 1 /* READ */);
}

static void patch_table(const struct dl_info *info, uintptr_t low, uintptr_t high,
                        const Elf64_Rela *table, size_t bytes, uintptr_t relro_low,
                        uintptr_t relro_high) {
  if ((uintptr_t)table < low || (uintptr_t)table >= high || bytes > high - (uintptr_t)table)
    return;
  for (size_t i = 0; i < bytes / sizeof *table; i++) {
    uint64_t type = ELF64_R_TYPE(table[i].r_info);
    uintptr_t slot = info->bias + table[i].r_offset;
    if ((type == JUMP_SLOT || type == GLOB_DAT || (type == WORD && !table[i].r_addend)) &&
        !(slot & 7) && slot >= low && slot < high - 7)
      patch(slot, relro_low, relro_high);
  }
}

static int patch_object(struct dl_info *info, size_t bytes, void *context) {
  (void)bytes;
  (void)context;
  uintptr_t low = UINTPTR_MAX, high = 0, relro_low = 0, relro_high = 0;
  const Elf64_Dyn *dynamic = NULL;
  size_t entries = 0;
  for (unsigned i = 0; i < info->header_count; i++) {
    const Elf64_Phdr *ph = &info->headers[i];
    uintptr_t start = info->bias + ph->p_vaddr;
    if (ph->p_type == PT_LOAD) {
      low = start < low ? start : low;
      high = start + ph->p_memsz > high ? start + ph->p_memsz : high;
    } else if (ph->p_type == PT_DYNAMIC) {
      dynamic = (const Elf64_Dyn *)start;
      entries = ph->p_memsz / sizeof *dynamic;
    } else if (ph->p_type == PT_GNU_RELRO) {
      relro_low = start & ~(PAGE - 1);
      relro_high = (start + ph->p_memsz) & ~(PAGE - 1); /* what the loader protects */
    }
  }
  bool allocators = ls_real.allocator_low >= low && ls_real.allocator_low < high;
  bool ours = (uintptr_t)patch_object >= low && (uintptr_t)patch_object < high;
  if (!dynamic || allocators || ours || (uintptr_t)dynamic < low || (uintptr_t)dynamic >= high)
    return 0;
  uint64_t jumps = 0, jump_bytes = 0, table = 0, table_bytes = 0;
  for (size_t i = 0; i < entries && dynamic[i].d_tag != DT_NULL; i++) {
    uint64_t value = dynamic[i].d_un.d_val;
    switch (dynamic[i].d_tag) {
    case DT_JMPREL:
      jumps = value;
      break;
    case DT_PLTRELSZ:
      jump_bytes = value;
      break;
    case DT_RELA:
      table = value;
      break;
    case DT_RELASZ:
      table_bytes = value;
      break;
    }
  }
  /* Moved in place by glibc, left alone by musl. */
  jumps += jumps && jumps < low ? info->bias : 0;
  table += table && table < low ? info->bias : 0;
  patch_table(info, low, high, (const Elf64_Rela *)jumps, jump_bytes, relro_low, relro_high);
  patch_table(info, low, high, (const Elf64_Rela *)table, table_bytes, relro_low, relro_high);
  return 0;
}

static LS_COLD void patch_deep(void) {
  uint32_t seen = __atomic_load_n(&opened_deep, __ATOMIC_ACQUIRE);
  if (!seen || ls_live->phase != LS_PHASE_RUNNING || !ls_process_is_ours() || !dl_iterate_phdr)
    return;
  dl_iterate_phdr(patch_object, NULL);
  __atomic_compare_exchange_n(&opened_deep, &seen, 0, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED);
}

/* ---- the loader's functions ---- */

#define REAL(type, name)                                                                      \
  static void *cache_##name;                                                                  \
  __typeof__(type) real = (__typeof__(type))__atomic_load_n(&cache_##name, __ATOMIC_RELAXED); \
  if (LS_UNLIKELY(!real))                                                                     \
  real = (__typeof__(type))ls_next_symbol_cached(&cache_##name, #name)

/* RTLD_DEFAULT 0 and RTLD_NEXT -1 depend on who asks. */
static inline bool asks_by_caller(const void *handle) { return (uintptr_t)handle + 1 <= 1; }

static void *shown(void *found) {
  void *hook = hook_of(found);
  return hook ? hook : found;
}

LS_EXPORT void *dlopen(const char *path, int flags);
void *dlopen(const char *path, int flags) {
  REAL(void *(*)(const char *, int), dlopen);
  if (flags & RTLD_DEEPBIND)
    __atomic_add_fetch(&opened_deep, 1, __ATOMIC_RELEASE);
  return real(path, flags);
}

/* A namespace of its own gets a C library of its own. Its malloc is not ours to wrap: what it
 * allocates for itself its own free has to release. */
LS_EXPORT void *dlmopen(long namespace, const char *path, int flags);
void *dlmopen(long namespace, const char *path, int flags) {
  REAL(void *(*)(long, const char *, int), dlmopen);
  struct lsr_header *header = ls_own_header();
  if (!real) /* musl has none */
    return NULL;
  if (namespace == -1 /* LM_ID_NEWLM */ && header && ls_process_is_ours())
    __atomic_fetch_or(&header->trouble, LSR_TROUBLE_NAMESPACE, __ATOMIC_RELAXED);
  return real(namespace, path, flags);
}

LS_EXPORT void *dlsym(void *handle, const char *name);
void *dlsym(void *handle, const char *name) {
  REAL(void *(*)(void *, const char *), dlsym);
  if (LS_UNLIKELY(__atomic_load_n(&opened_deep, __ATOMIC_RELAXED)))
    patch_deep();
  if (asks_by_caller(handle))
    return real(handle, name);
  return shown(real(handle, name));
}

LS_EXPORT void *dlvsym(void *handle, const char *name, const char *version);
void *dlvsym(void *handle, const char *name, const char *version) {
  REAL(void *(*)(void *, const char *, const char *), dlvsym);
  if (LS_UNLIKELY(__atomic_load_n(&opened_deep, __ATOMIC_RELAXED)))
    patch_deep();
  if (asks_by_caller(handle))
    return real(handle, name, version);
  return shown(real(handle, name, version));
}
