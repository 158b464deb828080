// SPDX-License-Identifier: Apache-2.0
// A library that is built without debug information.
#include <stdlib.h>

static void *inside(int n) {
    void *p = malloc(n);
    if (p == NULL)
        abort();
    return p;
}

void *thing_new(int n) {
    void **p = inside(16);
    *p = inside(n);
    return p;
}
