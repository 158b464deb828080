// SPDX-License-Identifier: Apache-2.0
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
/* a library function whose result the caller must free() */
char *render(int n) { char *s = malloc(100 + n % 700 * 8); sprintf(s, "item %d", n); return s; }
