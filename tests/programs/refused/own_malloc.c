// SPDX-License-Identifier: Apache-2.0
// Brings its own malloc, which comes before any preloaded one: cannot be traced this way.
#define _GNU_SOURCE
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../program.h"

static char arena[16u << 20];
static size_t used;
static int calls;

void *malloc(size_t bytes) {
  size_t start = __atomic_fetch_add(&used, (bytes + 31) / 16 * 16, __ATOMIC_RELAXED);
  if (bytes > sizeof arena || start + bytes + 16 > sizeof arena) {
    errno = ENOMEM;
    return NULL;
  }
  *(size_t *)(void *)(arena + start) = bytes;
  return arena + start + 16;
}

void free(void *block) { (void)block; }

void *calloc(size_t count, size_t bytes) {
  void *block = malloc(count * bytes);
  return block; // the arena is zero
}

void *realloc(void *block, size_t bytes) {
  void *moved = malloc(bytes);
  if (block != NULL && moved != NULL) {
    size_t old = ((size_t *)block)[-2];
    memcpy(moved, block, old < bytes ? old : bytes);
  }
  return moved;
}

int main(void) {
  for (int i = 0; i < 1000; i++) {
    void *block = malloc(100);
    keep(block);
    calls += block != NULL;
    free(block);
  }
  char line[64];
  int length = snprintf(line, sizeof line, "own malloc, %d calls\n", calls);
  return write(1, line, (size_t)length) != length;
}
