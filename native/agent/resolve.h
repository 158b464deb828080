// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Symbols of the loaded objects, found by reading their hash tables ourselves. Works
 * inside the first malloc of ld.so's start-up and needs no dlsym, which allocates.
 */
#ifndef LEAKSCOPE_RESOLVE_H
#define LEAKSCOPE_RESOLVE_H

#include <stdbool.h>
#include <stdint.h>

#pragma GCC visibility push(hidden)

struct ls_symbol_origin {
  const char *path;    /* of the object as the loader names it; "" for the main program */
  uintptr_t low, high; /* its address range */
  bool main_program;
};

/* The definition the program would use if we were not loaded: main program first, then
 * load order, our own object left out. NULL when there is none. `ret_origin` may be NULL. */
void *ls_next_symbol(const char *name, struct ls_symbol_origin *ret_origin);

/* The same, found once for all: `cache`, a constant address, is NULL at first. */
void *ls_next_symbol_cached(void **cache, const char *name);

#ifndef LS_INJECT
struct ls_named {
  void **cache;
  const char *name;
};
/* All that is ever asked for in this way is in a list, so that it can be found early. */
#define ls_next_symbol_cached(at, text)                                                    \
  ({                                                                                       \
    static struct ls_named named_ __attribute__((section("ls_names"), used)) = {at, text}; \
    (ls_next_symbol_cached)(named_.cache, named_.name);                                    \
  })

/* Find what is there of that list now: the loader's lock, which a search takes, may be held for
 * ever in a fork child of a program with threads, and the first call of a function be made there. */
void ls_next_symbols_find(void);
#endif

/* Whether the main program itself exports `name`, which puts it before every preloaded
 * definition. */
bool ls_program_defines(const char *name);

/* What the kernel told the process at its start (AT_*), 0: nothing of that kind. Read once,
 * while the program starts. */
uint64_t ls_auxiliary(uint64_t type);
/* These are they: nothing is read. */
void ls_auxiliary_adopt(const uint64_t (*pairs)[2], uint32_t count);

/* A function of the kernel's vDSO, NULL when there is none. */
void *ls_vdso_symbol(const char *name);

#pragma GCC visibility pop

#endif
