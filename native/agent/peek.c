// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Looking at memory that may be gone.
 */
#include "peek.h"

#include "process.h"
#include "str.h"
#include "sys.h"

#define PAGE 4096u
#define PAGE_OF(address) ((address) & ~(uintptr_t)(PAGE - 1))

enum { LS_ERR_FAULT = 14 };

/* Where process_vm_readv is forbidden or unknown: ask first, page by page, then read. */
static bool ask_and_copy(void *to, uintptr_t from, size_t bytes) {
  for (uintptr_t page = PAGE_OF(from); page < from + bytes; page += PAGE)
    if (!ls_is_readable((const void *)(page < from ? from & ~(uintptr_t)7 : page)))
      return false;
  memcpy(to, (const void *)from, bytes);
  return true;
}

bool ls_peek(void *to, uintptr_t from, size_t bytes) {
  struct ls_iovec local = {to, bytes}, remote = {(void *)from, bytes};
  if (from > UINTPTR_MAX - bytes)
    return false;
  long n = ls_process_vm_readv(ls_getpid(), &local, 1, &remote, 1, 0);
  if (n >= 0 || n == -LS_ERR_FAULT)
    return n == (long)bytes;
  return ask_and_copy(to, from, bytes);
}

size_t ls_peek_string(char *to, uintptr_t from, size_t room) {
  size_t got = 0;
  while (got < room) {
    size_t piece = PAGE - ((from + got) & (PAGE - 1));
    if (piece > 256) /* most names are short */
      piece = 256;
    if (piece > room - got)
      piece = room - got;
    if (!ls_peek(to + got, from + got, piece))
      break;
    for (size_t end = got + piece; got < end; got++)
      if (!to[got])
        return got;
  }
  return got;
}

size_t ls_peek_many(void *to, size_t stride, const uintptr_t *from, size_t bytes, size_t count) {
  struct ls_iovec local[LS_PEEK_MANY], remote[LS_PEEK_MANY];
  for (size_t i = 0; i < count; i++) {
    local[i] = (struct ls_iovec){(uint8_t *)to + i * stride, bytes};
    remote[i] = (struct ls_iovec){(void *)from[i], bytes};
  }
  long n = ls_process_vm_readv(ls_getpid(), local, count, remote, count, 0);
  if (n >= 0 || n == -LS_ERR_FAULT)
    return n < 0 ? 0 : (size_t)n / bytes;
  size_t done = 0;
  while (done < count && ask_and_copy((uint8_t *)to + done * stride, from[done], bytes))
    done++;
  return done;
}

uintptr_t ls_peek_run(uintptr_t low, uintptr_t high) {
  uintptr_t at = PAGE_OF(low), from[LS_PEEK_MANY];
  uint64_t words[LS_PEEK_MANY];
  while (at < high) {
    size_t count = 0;
    for (uintptr_t page = at; count < LS_PEEK_MANY && page < high; page += PAGE)
      from[count++] = page;
    size_t done = ls_peek_many(words, sizeof *words, from, sizeof *words, count);
    at += done * PAGE;
    if (done < count)
      return at;
  }
  return high;
}
