// SPDX-License-Identifier: Apache-2.0
/* Pointers that a constant hides, or that point just beside their blocks. One block of 999 B is lost. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#define NOINLINE __attribute__((noinline))
enum { N = 40 };
struct node { uint32_t next; char text[68]; };
static volatile uintptr_t secret = 0x5bd1e995a5a5c3c3ull, far = 1ull << 40;
static char *base;
static uint32_t *handles, bytes[N], head;
static uintptr_t xored[N], added[N], ends[5], before[5];
static void *fill(size_t size) { void *p = malloc(size); memset(p, 'x', size); return p; }
static uint32_t handle(void *p) { return (uint32_t)(((char *)p - base) >> 4); }
NOINLINE static void make(int i) {
  handles[i] = handle(fill(120));
  bytes[i] = (uint32_t)((char *)fill(i % 3 ? 136 : 152) - base);
  xored[i] = (uintptr_t)fill(200) ^ secret;
  added[i] = (uintptr_t)fill(280) + far;
  struct node *node = fill(sizeof *node);
  node->next = head;
  head = handle(node);
}
NOINLINE static void few(int i) {
  ends[i] = (uintptr_t)fill(350) + 350;
  before[i] = (uintptr_t)((double *)fill(440) - 1);
}
NOINLINE static void wipe(void) {
  volatile char b[65536];
  memset((void *)b, 0, sizeof b);
}
int main(void) {
  base = fill(16);
  handles = malloc(N * sizeof *handles);
  for (int i = 0; i < N; i++) make(i);
  for (int i = 0; i < 5; i++) few(i);
  char *lost = fill(999);
  lost = NULL;
  wipe();
  return handles[1] + bytes[1] + head == 0 || !xored[1] || !added[1] ||
         !ends[1] || !before[1];
}
