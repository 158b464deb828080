// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * The allocator underneath: what the program would have called without us.
 */
#include "base.h"
#include "loaded.h"
#include "real.h"
#include "resolve.h"
#include "str.h"

struct ls_real ls_real;

LS_COLD void ls_real_resolve(void) {
  if (__atomic_load_n(&ls_real.malloc, __ATOMIC_ACQUIRE))
    return;
  ls_loaded_find();
  /* Twice by two threads at once is harmless: both find the same. */
  struct ls_symbol_origin origin;
  memset(&origin, 0, sizeof origin);
  void *real_malloc = ls_next_symbol("malloc", &origin);
  size_t n = 0;
  for (; origin.path && origin.path[n] && n + 1 < sizeof ls_real.allocator_path; n++)
    ls_real.allocator_path[n] = origin.path[n];
  ls_real.allocator_low = origin.low;
  ls_real.allocator_high = origin.high;
  struct ls_symbol_origin of_new;
  memset(&of_new, 0, sizeof of_new);
  ls_real.allocator_wraps_new = ls_next_symbol("_Znwm", &of_new) && of_new.low == origin.low;
  ls_real.main_program_defines_malloc = ls_program_defines("malloc");
  ls_real.free = ls_next_symbol("free", NULL);
  ls_real.calloc = ls_next_symbol("calloc", NULL);
  ls_real.realloc = ls_next_symbol("realloc", NULL);
  ls_real.reallocarray = ls_next_symbol("reallocarray", NULL);
  ls_real.posix_memalign = ls_next_symbol("posix_memalign", NULL);
  ls_real.aligned_alloc = ls_next_symbol("aligned_alloc", NULL);
  ls_real.memalign = ls_next_symbol("memalign", NULL);
  ls_real.valloc = ls_next_symbol("valloc", NULL);
  ls_real.pvalloc = ls_next_symbol("pvalloc", NULL);
  ls_real.free_sized = ls_next_symbol("free_sized", NULL);
  ls_real.free_aligned_sized = ls_next_symbol("free_aligned_sized", NULL);
  __atomic_store_n(&ls_real.malloc, (void *(*)(size_t))real_malloc, __ATOMIC_RELEASE);
}
