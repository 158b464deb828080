// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * The loaded ELF objects: who owns a code address, where its unwind tables are.
 *
 * Found through the list that the loader keeps for debuggers and the ELF headers in memory,
 * never through libc's calls, which have locks the host can hold, nor with a descriptor,
 * which the host could meet. Readers take no lock. A module is never moved or released: a
 * pointer to one stays valid for the life of the process.
 */
#ifndef LEAKSCOPE_MODULES_H
#define LEAKSCOPE_MODULES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(hidden)

struct ls_module {
  uintptr_t start, end;           /* lowest and one past the highest address of its segments */
  uintptr_t bias;                 /* run-time address minus ELF virtual address */
  const uint8_t *eh_frame_hdr;    /* NULL: no unwind information */
  size_t eh_frame_hdr_size;       /* bytes */
  uintptr_t read_low, read_high;  /* the readable part around eh_frame_hdr: no read outside */
  uintptr_t text_low, text_high;  /* executable and readable; code bytes may be read here */
  uintptr_t entry;                /* the ELF entry point, 0: none */
  uint16_t index;                 /* index + 1 in the recording, 0: not recorded */
  bool gone;                      /* unmapped or replaced since */
  bool announced;
  bool listed;                    /* by the loader, at least once */
  uint8_t build_id_bytes;
  uint8_t build_id[32];
  uint64_t path_hash, page_hash;  /* of its name, of its first page */
  uint32_t seen;                  /* number of the last scan that saw it */
  uint8_t header[64];             /* its ELF header: tells a replaced object */
  const char *path;               /* not terminated */
  uint32_t path_bytes;
  const uint8_t *build_id_at;     /* where the build id lies, when in the first page */
};

/* A module as handed to the recording; pointers are valid during the call only. */
struct ls_module_info {
  uintptr_t start, end, bias;
  const char *path; /* not terminated */
  size_t path_bytes;
  const uint8_t *build_id;
  size_t build_id_bytes;
};

/* Defined by recording.c. */

/* What a scan holds. */
struct ls_lock *ls_modules_lock(void);

/* The module that owns `pc`, NULL when none is known to. */
const struct ls_module *ls_module_find(uintptr_t pc);

/* The same, looking for new objects when `pc` is unknown. Code outside any ELF object (JIT)
 * is remembered as such, so that it costs one reading and not one per call. When false is
 * stored to `ret_certain` the answer NULL may change at any time and must not be kept. */
const struct ls_module *ls_module_find_or_refresh(uintptr_t pc, bool *ret_certain);

/* Whether "unknown" may still be believed without asking again. */
bool ls_module_unknown_is_fresh(void);

/* Whether the object is still mapped where it was found; one cheap system call. */
bool ls_module_is_intact(const struct ls_module *module);

/* Read the loader's list again, after dlclose. True when a module vanished: rules that
 * were made from it are no longer true. */
bool ls_modules_rescan(void);

/* In the child of a fork: locks are free, nothing has been recorded. True when modules that are
 * recorded now will have the numbers that they had: rules with those hold. */
bool ls_modules_reset_after_fork(void);

extern uint32_t ls_module_epoch_now;
/* Changes whenever a module came or went. */
static inline uint32_t ls_module_epoch(void) {
  return __atomic_load_n(&ls_module_epoch_now, __ATOMIC_ACQUIRE);
}

#pragma GCC visibility pop

#endif
