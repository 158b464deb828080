// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * An ELF object as it lies in memory, read from its own headers.
 */
#ifndef LEAKSCOPE_IMAGE_H
#define LEAKSCOPE_IMAGE_H

#include "modules.h"

#pragma GCC visibility push(hidden)

#define LS_IMAGE_SEGMENTS 24u

struct ls_image {
  struct ls_module module;
  uintptr_t dynamic;    /* its dynamic section, 0: none */
  uintptr_t first_end;  /* where the mapping ends that begins with its headers */
  uint32_t segment_count;
  struct {
    uintptr_t start, end; /* not rounded */
    uint32_t flags;
  } segments[LS_IMAGE_SEGMENTS];
};

/* Fill `ret` from the headers at `where`. False: no ELF object with code begins there. Under
 * the caller's lock: it uses static memory. */
bool ls_image_read(struct ls_image *ret, uintptr_t where);

uint64_t ls_image_hash(const void *from, size_t bytes);

/* Whether `pc` lies in a segment that is meant to be executed. */
bool ls_image_executes(const struct ls_image *image, uintptr_t pc);

/* Believe no header: keep of the object what the kernel says can be read. False: no unwind
 * information is left. For objects that somebody else than the loader mapped. */
bool ls_image_check_readable(struct ls_image *image);

/* The path of the file that is mapped there, as /proc/self/maps would show it, without a
 * descriptor; " (deleted)" is left out. Returns its bytes, 0: not known. */
size_t ls_image_path(const struct ls_image *image, char *out, size_t room);

#pragma GCC visibility pop

#endif
