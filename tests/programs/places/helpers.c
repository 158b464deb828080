// SPDX-License-Identifier: Apache-2.0
// Leaks through helpers that nobody named xmalloc, a constructor, and two that are no helpers.
#include <stdlib.h>
#include <string.h>

#define SEPARATE __attribute__((noinline))
#define DROP(p) __asm__ volatile("" : : "r"(p) : "memory")

void *grab(size_t n);
void *outer(size_t n);

struct node {
    int value;
    struct node *next;
};

SEPARATE struct node *make_node(int value) {
    struct node *node = malloc(sizeof *node);
    if (node == NULL)
        abort();
    *node = (struct node){value, NULL};
    return node;
}

SEPARATE void leak_here(size_t n) {
    char *p = malloc(n);
    memset(p, 1, n);
    DROP(p);
}

SEPARATE char *only_once(const char *text) {
    char *copy = malloc(strlen(text) + 1);
    if (copy == NULL)
        abort();
    return strcpy(copy, text);
}

SEPARATE void load_users(void) { DROP(grab(100)); }
SEPARATE void load_orders(void) { DROP(grab(3000)); }
SEPARATE void cold(void) { DROP(outer(200)); }
SEPARATE void warm(void) {
    void *p = outer(500);
    DROP(p);
    free(p);
}
SEPARATE void push(void) { DROP(make_node(1)); }
SEPARATE void append(void) { DROP(make_node(2)); }
SEPARATE void hello(void) { DROP(only_once("hello")); }

int main(void) {
    for (int i = 0; i < 30; i++) {
        load_users();
        load_orders();
        cold();
        warm();
        push();
        append();
        hello();
        leak_here(10);
        if (i & 1)
            leak_here(20 + i);
    }
    return 0;
}
