// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * What a thread has at hand in every hook: where its state is, and whether a hook is in progress.
 */
#ifndef LEAKSCOPE_LOCAL_H
#define LEAKSCOPE_LOCAL_H

#include "base.h"

#pragma GCC visibility push(hidden) /* no GOT between our own files */

struct ls_thread;

/* Thread-local state; 48 bytes of initial-exec TLS. */
struct ls_local {
  struct ls_thread *thread;
  uintptr_t busy; /* stack pointer of the hook in progress, 0: none */
  uint64_t sample_left; /* sampled mode: bytes to the next sample point; 0: take the slow path */
  uint32_t kind;  /* 1 + enum lsr_kind that the next malloc stands for, 0: malloc */
  uint32_t epoch; /* equals ls_live.gate while recording; `thread` may be gone when not */
  size_t kind_size; /* asked of the operator new[] that `kind` is of */
  uintptr_t deleted; /* the next free of this address less LSR_FREE_VIA_…: of operator delete. 0: none */
};
#ifdef LS_INJECT /* mapped by hand, where there is no thread-local storage to be had */
#include "self.h"
#define ls_tls (*ls_self())
#else
extern __thread struct ls_local ls_tls;
/* Around a call of the real function from a frame of ours. */
#define LS_REAL(call) (call)
#define LS_REAL_VOID(call) (call)
#endif

#pragma GCC visibility pop

#endif
