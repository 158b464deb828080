// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Frames that nothing describes, read from the code that leaves them.
 *
 * Go's assembly between its stacks and C's has no .eh_frame. Behind the return address stands,
 * without a branch, what puts the registers back: it says where they are kept.
 */
#ifndef LEAKSCOPE_EPILOGUE_H
#define LEAKSCOPE_EPILOGUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(hidden)

struct ls_epilogue {
  enum ls_epilogue_kind {
    LS_EPILOGUE_FRAME,     /* all registers that C preserves are loaded from the frame */
    LS_EPILOGUE_SAVED_SP,  /* the stack pointer is loaded from `depth_at` */
    LS_EPILOGUE_GOROUTINE, /* it is g->stack.hi minus the word at `depth_at`; g at `g_at` */
  } kind;
  int32_t cfa;             /* FRAME: bytes from sp to above the return address */
  int32_t fp_at;           /* FRAME: bytes from sp to the caller's frame pointer */
  int32_t g_at, depth_at;  /* bytes from sp */
  bool pops_fp;            /* not FRAME: the frame pointer lies before the return address */
};

/* What the `bytes` of code behind a return address do. False: not understood. */
bool ls_epilogue_read(const uint8_t *code, size_t bytes, struct ls_epilogue *ret);

#pragma GCC visibility pop

#endif
