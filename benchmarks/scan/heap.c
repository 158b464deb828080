// SPDX-License-Identifier: Apache-2.0
/* A heap of BLOCKS blocks of about BYTES bytes, all reachable but one of a thousand, then waits.
 * Blocks are linked the way real ones are: trees, lists and tables of pointers. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct node {
  struct node *left, *right;
  uint64_t words[];
};

static struct node *table[4096];

int main(int count, char **arguments) {
  size_t blocks = count > 1 ? strtoull(arguments[1], 0, 10) : 1000000;
  size_t bytes = count > 2 ? strtoull(arguments[2], 0, 10) : 200;
  uint64_t state = 88172645463325252u;
  for (size_t i = 0; i < blocks; i++) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    size_t size = sizeof(struct node) + bytes / 2 + state % bytes;
    struct node *node = malloc(size);
    memset(node, (int)(state >> 40) & 63, size); /* small numbers and text, not pointers */
    if (i % 1000 == 999) {
      node->left = node->right = NULL;
      continue; /* lost */
    }
    struct node **slot = &table[state >> 20 & 4095];
    node->left = *slot;
    node->right = *slot ? (*slot)->left : NULL;
    *slot = node;
  }
  puts("ready");
  fflush(stdout);
  pause();
  return 0;
}
