// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * The allocator underneath.
 */
#ifndef LEAKSCOPE_REAL_H
#define LEAKSCOPE_REAL_H

#include "base.h"

#pragma GCC visibility push(hidden) /* no GOT between our own files */

struct ls_real {
  void *(*malloc)(size_t);
  void (*free)(void *);
  void *(*calloc)(size_t, size_t);
  void *(*realloc)(void *, size_t);
  void *(*reallocarray)(void *, size_t, size_t);
  int (*posix_memalign)(void **, size_t, size_t);
  void *(*aligned_alloc)(size_t, size_t);
  void *(*memalign)(size_t, size_t);
  void *(*valloc)(size_t);
  void *(*pvalloc)(size_t);
  void (*free_sized)(void *, size_t);
  void (*free_aligned_sized)(void *, size_t, size_t);
  uintptr_t allocator_low, allocator_high; /* the object that defines malloc */
  bool allocator_wraps_new; /* it defines operator new too (jemalloc, tcmalloc) */
  bool main_program_defines_malloc; /* our hooks are bypassed */
  char allocator_path[128];
};
extern struct ls_real ls_real;
void ls_real_resolve(void);

#pragma GCC visibility pop

#endif
