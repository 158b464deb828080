// SPDX-License-Identifier: Apache-2.0
/* Blocks that are found by a distance: links that count from where they are, as in memory that is
   mapped elsewhere each time, and lists whose links are the exclusive or of both neighbours. Small
   numbers are about. Forty blocks of 72 bytes and one of 999 are lost. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define N 300
struct node { int64_t link; char text[54]; };
struct both { int number; uintptr_t link; char text[90]; };
struct counted { uint64_t capacity, used; char text[100]; };
static int64_t newest;                   /* distance from here */
static struct { int64_t first; } front;  /* a list that grows at its end */
static struct both *head, *tail;
struct counted *table[N];
static __attribute__((noinline)) void set_up(void) {
  struct node *last = NULL;
  for (int i = 0; i < N; i++) {
    struct node *node = calloc(1, sizeof *node);
    node->link = newest ? (char *)&newest + newest - (char *)&node->link : 0;
    newest = (char *)node - (char *)&newest;
    node = calloc(1, sizeof *node + 64);
    int64_t *from = last ? &last->link : &front.first;
    *from = (char *)node - (char *)from;
    last = node;
    struct both *both = calloc(1, sizeof *both);
    both->link = (uintptr_t)tail;
    if (tail) tail->link ^= (uintptr_t)both;
    else head = both;
    tail = both;
    table[i] = calloc(1, sizeof *table[i]);
    table[i]->capacity = 4096 + 16 * (i % 64);
    table[i]->used = 16 * (i % 50);
    if (i % 8 == 0 || i > N - 3) {
      char *volatile lost = calloc(1, 72);
      lost = NULL;
    }
  }
  char *volatile lost = calloc(1, 999);
  lost = NULL;
}
static __attribute__((noinline)) void wipe(void) { volatile char b[8192]; memset((void *)b, 0, sizeof b); }
int main(void) {
  set_up();
  wipe();
  printf("ready %d %lld %lld\n", head->number, (long long)newest, (long long)front.first);
  return 0;
}
