// SPDX-License-Identifier: Apache-2.0
// Preloaded, it hands malloc and free on to glibc and does nothing else: what standing in the way
// costs by itself. With a large live set a pair is a chain of cache misses that the processor
// overlaps with the next pairs, and each instruction between them takes room from that.
#include <stddef.h>

extern void *__libc_malloc(size_t);
extern void __libc_free(void *);

void *malloc(size_t size) { return __libc_malloc(size); }
void free(void *pointer) { __libc_free(pointer); }
