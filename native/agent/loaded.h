// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * The loader's own list of objects (struct r_debug and struct link_map), which debuggers use:
 * no lock, no descriptor, no call into libc. It may change while it is read, so each entry is
 * copied by the kernel and checked against its neighbour.
 */
#ifndef LEAKSCOPE_LOADED_H
#define LEAKSCOPE_LOADED_H

#include <stdbool.h>
#include <stdint.h>

#include "leakscope/recording.h"

#pragma GCC visibility push(hidden)

#define LS_MAX_LOADED (LSR_MAX_MODULES + 512u) /* dlmopen lists the loader again and again */

/* The public part of struct link_map, the same in glibc and musl. */
struct ls_link {
  uintptr_t bias, name, dynamic, next, previous;
};

struct ls_loaded {
  uintptr_t at; /* of the struct link_map */
  struct ls_link link;
  struct ls_module *module; /* NULL: no code in it, or no room */
};

/* In load order, one namespace after the other. */
struct ls_loaded_list {
  struct ls_loaded entry[LS_MAX_LOADED];
  uint32_t count;
  bool whole; /* read to the end, and in itself consistent */
};

/* Look for the list, while the program starts or a hook is used for the first time. */
void ls_loaded_find(void);

/* Where the main program's ELF header lies, 0: not known; and its path, NULL: ask the kernel. */
extern uintptr_t ls_main_program;
extern const char *ls_main_path;

/* These are they: nothing is looked for. `debug` 0: no loader has a list, there is this program and
 * no more. */
void ls_loaded_adopt(uintptr_t main_program, uintptr_t debug, const char *main_path);

/* Called for an object that was not in the list before; returns its module. `first` in its
 * namespace: the main program. */
typedef struct ls_module *ls_loaded_enter(const struct ls_link *link, bool first);

/* Bring `to` up to date; entries that were in `from` keep their module. */
void ls_loaded_read(struct ls_loaded_list *to, const struct ls_loaded_list *from,
                    ls_loaded_enter *enter);

/* Only look behind the last entry. False: that does not tell; the list must be read. */
bool ls_loaded_read_tail(struct ls_loaded_list *list, ls_loaded_enter *enter);

#pragma GCC visibility pop

#endif
