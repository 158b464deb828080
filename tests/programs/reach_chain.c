// SPDX-License-Identifier: Apache-2.0
// A list, a ring and a tree whose only pointer from outside is gone.
// expect HEAD: lost
// expect NEXT: lost
// expect RING: lost
// expect ROOT: lost
// expect LEAF: lost
// leaks: HEAD NEXT RING ROOT LEAF
#include <stdlib.h>
#include <string.h>

#include "program.h"

struct node {
  struct node *next, *left, *right;
  char text[100];
};

static struct node *volatile list, *volatile ring, *volatile tree;

static struct node *fresh(struct node *made) {
  memset(made, 0, sizeof *made);
  return made;
}

static void build(void) {
  list = fresh(malloc(sizeof(struct node)));       // HEAD HERE
  list->next = fresh(malloc(sizeof(struct node))); // NEXT HERE
  for (int i = 0; i < 3; i++) {
    struct node *one = fresh(malloc(sizeof(struct node))); // RING HERE
    one->next = ring ? ring->next : one;
    if (ring)
      ring->next = one;
    ring = one;
  }
  tree = fresh(malloc(sizeof(struct node))); // ROOT HERE
  for (int i = 0; i < 8; i++) {
    struct node *leaf = fresh(malloc(sizeof(struct node))); // LEAF HERE
    leaf->left = tree->left;
    tree->left = leaf;
  }
}

int main(void) {
  build();
  list = ring = tree = NULL;
  return 0;
}
