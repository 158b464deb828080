// SPDX-License-Identifier: Apache-2.0
// Preloaded, it hands malloc and free on to glibc and does nothing else: what standing in the way
// costs by itself. With a large live set a pair is a chain of cache misses that the processor
// overlaps with the next pairs, and each instruction between them takes room from that. With
// -DFIFTIES=N each call first runs N times fifty no-operations, which touch no memory and wait
// for nothing: what that lost overlap alone costs a tracer that does its work in as many steps.
#include <stddef.h>

#ifndef FIFTIES
#define FIFTIES 0
#endif
#define TEN "nop;nop;nop;nop;nop;nop;nop;nop;nop;nop;"

extern void *__libc_malloc(size_t);
extern void __libc_free(void *);

static inline void work(void) {
  for (int i = 0; i < FIFTIES; i++)
    __asm__ volatile(TEN TEN TEN TEN TEN);
}

void *malloc(size_t size) {
  work();
  return __libc_malloc(size);
}

void free(void *pointer) {
  work();
  __libc_free(pointer);
}
