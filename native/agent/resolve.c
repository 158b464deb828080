// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Symbol look-up in the objects the loader has mapped.
 *
 * Source: System V ABI, dynamic linking, for DT_HASH; the GNU hash section as binutils
 * and lld write it. The dynamic section's addresses are relocated in place by glibc and
 * left alone by musl and in the vDSO: whichever reading falls into the object is meant.
 */
#include "resolve.h"

#include "apart.h"
#include "base.h"
#include "loader.h"
#include "real.h"
#include "seal.h"
#include "str.h"
#include "sys.h"

#define HIDDEN_VERSION 0x8000u

struct object {
  uintptr_t low, high, bias;
  const Elf64_Sym *symbols;
  const char *strings;
  size_t string_bytes;
  const uint32_t *hash, *gnu_hash; /* one of them, or both */
  const uint16_t *versions;        /* NULL: unversioned */
};

static bool inside(const struct object *object, const void *at, size_t bytes) {
  uintptr_t address = (uintptr_t)at;
  return address >= object->low && address < object->high && bytes <= object->high - address;
}

static const void *pointer(const struct object *object, uint64_t value) {
  if (inside(object, (const void *)value, 1))
    return (const void *)value;
  const void *moved = (const void *)(object->bias + value);
  return inside(object, moved, 1) ? moved : NULL;
}

static bool read_object(struct object *ret, uintptr_t bias, const Elf64_Phdr *headers,
                        unsigned count) {
  *ret = (struct object){.low = UINTPTR_MAX, .bias = bias};
  const Elf64_Dyn *dynamic = NULL;
  size_t dynamic_bytes = 0;
  for (unsigned i = 0; i < count; i++) {
    const Elf64_Phdr *ph = &headers[i];
    if (ph->p_type == PT_LOAD) {
      if (bias + ph->p_vaddr < ret->low)
        ret->low = bias + ph->p_vaddr;
      if (bias + ph->p_vaddr + ph->p_memsz > ret->high)
        ret->high = bias + ph->p_vaddr + ph->p_memsz;
    } else if (ph->p_type == PT_DYNAMIC) {
      dynamic = (const Elf64_Dyn *)(bias + ph->p_vaddr);
      dynamic_bytes = ph->p_memsz;
    }
  }
  if (!dynamic || !inside(ret, dynamic, dynamic_bytes))
    return false;
  for (size_t i = 0; i < dynamic_bytes / sizeof *dynamic && dynamic[i].d_tag != DT_NULL; i++) {
    uint64_t value = dynamic[i].d_un.d_val;
    switch (dynamic[i].d_tag) {
    case DT_SYMTAB:
      ret->symbols = pointer(ret, value);
      break;
    case DT_STRTAB:
      ret->strings = pointer(ret, value);
      break;
    case DT_STRSZ:
      ret->string_bytes = value;
      break;
    case DT_HASH:
      ret->hash = pointer(ret, value);
      break;
    case DT_GNU_HASH:
      ret->gnu_hash = pointer(ret, value);
      break;
    case DT_VERSYM:
      ret->versions = pointer(ret, value);
      break;
    }
  }
  return ret->symbols && ret->strings && inside(ret, ret->strings, ret->string_bytes) &&
         (ret->hash || ret->gnu_hash);
}

static bool has_name(const struct object *object, const Elf64_Sym *symbol, const char *name) {
  if (symbol->st_name >= object->string_bytes)
    return false;
  const char *text = object->strings + symbol->st_name;
  size_t room = object->string_bytes - symbol->st_name;
  for (size_t i = 0; i < room; i++) {
    if (text[i] != name[i])
      return false;
    if (!name[i])
      return true;
  }
  return false;
}

/* A usable definition of `name`: 2 the default version, 1 a hidden one, 0 none. */
static unsigned rank(const struct object *object, uint32_t index, const char *name) {
  const Elf64_Sym *symbol = &object->symbols[index];
  if (!inside(object, symbol, sizeof *symbol) || symbol->st_shndx == SHN_UNDEF || !symbol->st_value)
    return 0;
  unsigned bind = ELF64_ST_BIND(symbol->st_info), type = ELF64_ST_TYPE(symbol->st_info);
  unsigned visibility = ELF64_ST_VISIBILITY(symbol->st_other);
  if ((bind != STB_GLOBAL && bind != STB_WEAK && bind != STB_GNU_UNIQUE) ||
      (type != STT_FUNC && type != STT_GNU_IFUNC) ||
      (visibility != STV_DEFAULT && visibility != STV_PROTECTED) ||
      !has_name(object, symbol, name))
    return 0;
  const uint16_t *version = object->versions ? &object->versions[index] : NULL;
  if (version && inside(object, version, sizeof *version) && *version & HIDDEN_VERSION)
    return 1;
  return 2;
}

static const Elf64_Sym *look_up_gnu(const struct object *object, const char *name) {
  const uint32_t *table = object->gnu_hash;
  if (!inside(object, table, 16))
    return NULL;
  uint32_t bucket_count = table[0], first = table[1], bloom_words = table[2];
  const uint32_t *buckets = table + 4 + 2 * (size_t)bloom_words;
  const uint32_t *chain = buckets + bucket_count;
  if (!bucket_count || !inside(object, buckets, (size_t)bucket_count * 4))
    return NULL;
  uint32_t hash = 5381;
  for (const char *c = name; *c; c++)
    hash = hash * 33 + (uint8_t)*c;
  const Elf64_Sym *hidden = NULL;
  for (uint32_t index = buckets[hash % bucket_count]; index >= first && index; index++) {
    const uint32_t *link = chain + (index - first);
    if (!inside(object, link, 4))
      break;
    if ((*link | 1) == (hash | 1)) {
      unsigned found = rank(object, index, name);
      if (found == 2)
        return &object->symbols[index];
      if (found == 1 && !hidden)
        hidden = &object->symbols[index];
    }
    if (*link & 1)
      break;
  }
  return hidden;
}

static const Elf64_Sym *look_up_sysv(const struct object *object, const char *name) {
  const uint32_t *table = object->hash;
  if (!inside(object, table, 8))
    return NULL;
  uint32_t bucket_count = table[0], chain_count = table[1];
  const uint32_t *buckets = table + 2, *chain = buckets + bucket_count;
  if (!bucket_count || !inside(object, buckets, ((size_t)bucket_count + chain_count) * 4))
    return NULL;
  uint32_t hash = 0;
  for (const char *c = name; *c; c++) {
    hash = (hash << 4) + (uint8_t)*c;
    hash ^= hash >> 24 & 0xf0;
  }
  hash &= 0x0fffffff;
  const Elf64_Sym *hidden = NULL;
  uint32_t steps = 0;
  for (uint32_t index = buckets[hash % bucket_count]; index && index < chain_count;
       index = chain[index]) {
    unsigned found = rank(object, index, name);
    if (found == 2)
      return &object->symbols[index];
    if (found == 1 && !hidden)
      hidden = &object->symbols[index];
    if (++steps > chain_count)
      break; /* a ring */
  }
  return hidden;
}

static const Elf64_Sym *look_up(const struct object *object, const char *name) {
  return object->gnu_hash ? look_up_gnu(object, name) : look_up_sysv(object, name);
}

/* ---- the kernel's notes to the process ---- */

#define MAX_NOTES 64u
static struct {
  uint64_t type, value;
} notes[MAX_NOTES];
static uint32_t note_count;

static long read_notes(void *unused) {
  (void)unused;
  int fd = ls_open("/proc/self/auxv", 02000000 /* O_CLOEXEC */, 0);
  if (fd < 0)
    return fd;
  long n = ls_read(fd, notes, sizeof notes);
  ls_close(fd);
  return n;
}

void ls_auxiliary_adopt(const uint64_t (*pairs)[2], uint32_t count) {
  for (uint32_t i = 0; i < count && i < MAX_NOTES; i++) {
    notes[i].type = pairs[i][0];
    notes[i].value = pairs[i][1];
  }
  note_count = count;
}

uint64_t ls_auxiliary(uint64_t type) {
  if (!note_count) {
    ls_seal_begin();
    long n = ls_apart(read_notes, NULL);
    note_count = n > 0 ? (uint32_t)((unsigned long)n / sizeof *notes) : 1; /* once is enough */
  }
  for (uint32_t i = 0; i < note_count && notes[i].type != AT_NULL; i++)
    if (notes[i].type == type)
      return notes[i].value;
  return 0;
}

static void *call_resolver(uintptr_t resolver) {
#ifdef __aarch64__
  struct {
    unsigned long size, hwcap, hwcap2;
  } argument = {sizeof argument, ls_auxiliary(AT_HWCAP), ls_auxiliary(AT_HWCAP2)};
  return ((void *(*)(uint64_t, const void *))resolver)(argument.hwcap | 1ull << 62, &argument);
#else
  return ((void *(*)(void))resolver)();
#endif
}

static void *address_of(const struct object *object, const Elf64_Sym *symbol) {
  uintptr_t address = object->bias + symbol->st_value;
  return ELF64_ST_TYPE(symbol->st_info) == STT_GNU_IFUNC ? call_resolver(address) : (void *)address;
}

/* ---- through all objects ---- */

struct search {
  const char *name;
  struct ls_symbol_origin origin;
  void *found;
  bool first_only;
  bool first;
};

static int search_object(struct dl_info *info, size_t bytes, void *context) {
  (void)bytes;
  struct search *search = context;
  bool main_program = search->first;
  search->first = false;
  struct object object;
  bool usable = read_object(&object, info->bias, info->headers, info->header_count);
  if (usable && !inside(&object, (const void *)&ls_next_symbol, 1)) {
    const Elf64_Sym *symbol = look_up(&object, search->name);
    if (symbol) {
      search->found = address_of(&object, symbol);
      search->origin = (struct ls_symbol_origin){.path = info->name ? info->name : "",
                                                 .low = object.low,
                                                 .high = object.high,
                                                 .main_program = main_program};
    }
  }
  return search->found || search->first_only;
}

void *ls_next_symbol(const char *name, struct ls_symbol_origin *ret_origin) {
  struct search search = {.name = name, .first = true};
  if (dl_iterate_phdr)
    dl_iterate_phdr(search_object, &search);
  if (search.found && ret_origin)
    *ret_origin = search.origin;
  return search.found;
}

#ifndef LS_INJECT /* where functions are replaced one by one, only whoever does so knows them */
extern struct ls_named __start_ls_names[] __attribute__((weak, visibility("hidden")));
extern struct ls_named __stop_ls_names[] __attribute__((weak, visibility("hidden")));

static int search_names(struct dl_info *info, size_t bytes, void *context) {
  (void)bytes, (void)context;
  struct object object;
  if (!read_object(&object, info->bias, info->headers, info->header_count) ||
      inside(&object, (const void *)&ls_next_symbol, 1))
    return 0;
  for (struct ls_named *named = __start_ls_names; named < __stop_ls_names; named++) {
    if (__atomic_load_n(named->cache, __ATOMIC_RELAXED))
      continue;
    const Elf64_Sym *symbol = look_up(&object, named->name);
    if (symbol)
      __atomic_store_n(named->cache, address_of(&object, symbol), __ATOMIC_RELAXED);
  }
  return 0;
}

LS_COLD void ls_next_symbols_find(void) {
  if (dl_iterate_phdr)
    dl_iterate_phdr(search_names, NULL);
}

LS_COLD void *(ls_next_symbol_cached)(void **cache, const char *name) {
  void *found = __atomic_load_n(cache, __ATOMIC_RELAXED);
  if (!found) {
    ls_real_resolve();
    found = ls_next_symbol(name, NULL);
    __atomic_store_n(cache, found, __ATOMIC_RELAXED);
  }
  return found;
}
#endif

bool ls_program_defines(const char *name) {
  struct search search = {.name = name, .first = true, .first_only = true};
  if (dl_iterate_phdr)
    dl_iterate_phdr(search_object, &search);
  return search.found != NULL;
}

void *ls_vdso_symbol(const char *name) {
  const Elf64_Ehdr *ehdr = (const Elf64_Ehdr *)ls_auxiliary(AT_SYSINFO_EHDR);
  if (!ehdr || ehdr->e_phentsize != sizeof(Elf64_Phdr))
    return NULL;
  const Elf64_Phdr *headers = (const Elf64_Phdr *)((uintptr_t)ehdr + ehdr->e_phoff);
  uintptr_t bias = 0;
  for (unsigned i = ehdr->e_phnum; i-- > 0;)
    if (headers[i].p_type == PT_LOAD)
      bias = (uintptr_t)ehdr + headers[i].p_offset - headers[i].p_vaddr;
  struct object object;
  if (!read_object(&object, bias, headers, ehdr->e_phnum))
    return NULL;
  const Elf64_Sym *symbol = look_up(&object, name);
  return symbol ? address_of(&object, symbol) : NULL;
}
