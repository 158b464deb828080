// SPDX-License-Identifier: Apache-2.0
/* A heap of BLOCKS blocks of about BYTES bytes, all reachable but one of a thousand, then waits.
 * SHAPE is how they are linked:
 *   mixed  4096 lists, each block also points to the one after the next
 *   chain  one list through all blocks in an order of chance: no two neighbours of it lie together
 *   tree   a search tree by keys of chance
 *   array  one array of pointers to them, in an order of chance
 *   sparse as mixed, and a mapping of 1 TiB with three pages in it
 *   freed  all but the lost ones are free again, in the order in which they were made
 *   random the same in an order of chance */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct node {
  struct node *left, *right;
  uint64_t key;
  uint64_t words[];
};

static struct node *table[4096], *root, **all;

static uint64_t state = 88172645463325252u;

static uint64_t chance(void) {
  state ^= state << 13, state ^= state >> 7, state ^= state << 17;
  return state;
}

static void shuffle(size_t count) {
  for (size_t i = count; i > 1; i--) {
    size_t other = chance() % i;
    struct node *node = all[i - 1];
    all[i - 1] = all[other];
    all[other] = node;
  }
}

int main(int count, char **arguments) {
  size_t blocks = count > 1 ? strtoull(arguments[1], 0, 10) : 1000000, kept = 0;
  size_t bytes = count > 2 ? strtoull(arguments[2], 0, 10) : 200;
  char shape = count > 3 ? arguments[3][0] : 'm';
  if (shape == 's') {
    char *p = mmap(NULL, 1ul << 40, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
      return 2;
    for (int i = 0; i < 3; i++)
      p[(size_t)i << 38] = 1;
  }
  if (shape == 'c' || shape == 'a' || shape == 'f' || shape == 'r')
    all = malloc(blocks * sizeof *all);
  for (size_t i = 0; i < blocks; i++) {
    uint64_t random = chance();
    size_t size = sizeof(struct node) + bytes / 2 - 8 + random % bytes;
    struct node *node = malloc(size);
    memset(node, (int)(random >> 40) & 63, size); /* small numbers and text, not pointers */
    node->left = node->right = NULL;
    if (i % 1000 == 999)
      continue; /* lost */
    if (all) {
      all[kept++] = node;
    } else if (shape == 't') {
      struct node **at = &root;
      node->key = chance() >> 16;
      while (*at)
        at = node->key < (*at)->key ? &(*at)->left : &(*at)->right;
      *at = node;
    } else {
      struct node **slot = &table[random >> 20 & 4095];
      node->left = *slot;
      node->right = *slot ? (*slot)->left : NULL;
      *slot = node;
    }
  }
  if (all && shape != 'f')
    shuffle(kept);
  if (shape == 'f' || shape == 'r') {
    for (size_t i = 0; i < kept; i++)
      free(all[i]);
    free(all);
    all = NULL;
  }
  if (shape == 'c') {
    for (size_t i = 0; i < kept; i++)
      all[i]->left = i + 1 < kept ? all[i + 1] : NULL;
    root = all[0];
    memset(all, 0, blocks * sizeof *all);
    free(all);
    all = NULL;
  }
  puts("ready");
  fflush(stdout);
  if (count <= 4) /* "end" as the fourth argument: it does not wait */
    pause();
  return 0;
}
