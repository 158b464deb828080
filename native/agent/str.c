// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * memcpy and its kin, word by word. Nothing hot moves enough bytes to want more.
 */
#include "str.h"

#include <stdint.h>

/* Without this the compiler would turn each loop into a call of the function it is in. */
#define NO_IDIOMS __attribute__((optimize("no-tree-loop-distribute-patterns")))

typedef uint64_t __attribute__((may_alias, aligned(1))) word;

NO_IDIOMS void *memcpy(void *restrict to, const void *restrict from, size_t bytes) {
  uint8_t *out = to;
  const uint8_t *in = from;
  for (; bytes >= sizeof(word); bytes -= sizeof(word), out += sizeof(word), in += sizeof(word))
    *(word *)out = *(const word *)in;
  for (; bytes; bytes--)
    *out++ = *in++;
  return to;
}

NO_IDIOMS void *memmove(void *to, const void *from, size_t bytes) {
  uint8_t *out = to;
  const uint8_t *in = from;
  if ((uintptr_t)to - (uintptr_t)from >= bytes) {
    /* Each word is read before anything at or above it is written. */
    for (; bytes >= sizeof(word); bytes -= sizeof(word), out += sizeof(word), in += sizeof(word))
      *(word *)out = *(const word *)in;
    for (; bytes; bytes--)
      *out++ = *in++;
    return to;
  }
  while (bytes >= sizeof(word)) {
    bytes -= sizeof(word);
    *(word *)(out + bytes) = *(const word *)(in + bytes);
  }
  while (bytes) {
    bytes--;
    out[bytes] = in[bytes];
  }
  return to;
}

NO_IDIOMS void *memset(void *to, int byte, size_t bytes) {
  uint8_t *out = to;
  word pattern = 0x0101010101010101ull * (uint8_t)byte;
  for (; bytes >= sizeof(word); bytes -= sizeof(word), out += sizeof(word))
    *(word *)out = pattern;
  for (; bytes; bytes--)
    *out++ = (uint8_t)byte;
  return to;
}

NO_IDIOMS int memcmp(const void *a, const void *b, size_t bytes) {
  const uint8_t *left = a, *right = b;
  for (; bytes; bytes--, left++, right++)
    if (*left != *right)
      return *left - *right;
  return 0;
}
