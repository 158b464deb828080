// SPDX-License-Identifier: Apache-2.0
#include "x.h"
#include <pthread.h>
/* the result of a thread that ended and is not joined yet: pthread_join still returns it */
static void *ret(void *a) { (void)a; char *p = malloc(400); p[0] = 1; return p; }
int main(int c, char **v) { pthread_t t; pthread_create(&t, 0, ret, 0); x_nap(300000); x_wipe(); if (c > 1) { sleep(atoi(v[1])); } void *r; if (c > 2) { pthread_join(t, &r); free(r); } return 0; }
