// SPDX-License-Identifier: Apache-2.0
// The allocation helpers of helpers.c, in another file: one, and one around another.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *grab(size_t n) {
    void *p = malloc(n);
    if (p == NULL) {
        fprintf(stderr, "out of memory\n");
        exit(1);
    }
    return memset(p, 1, n);
}

static void *inner(size_t n) {
    void *p = malloc(n);
    if (p == NULL)
        exit(3);
    return memset(p, 1, n);
}

void *outer(size_t n) {
    void *p = inner(n + 8);
    *(size_t *)p = n;
    return (char *)p + 0;
}
