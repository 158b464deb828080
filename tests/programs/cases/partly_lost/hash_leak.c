// SPDX-License-Identifier: Apache-2.0
#include "x.h"
static void **tab; static size_t nb;
NOINLINE void rehash(size_t m) {
  void **t = calloc(m, sizeof *t); /*LEAK*/
  if (nb) memcpy(t, tab, nb * sizeof *t);
  tab = t; nb = m; /* the old table is forgotten */
}
int main(void) { for (size_t m = 16; m <= 2048; m *= 2) rehash(m); x_wipe(); printf("%p\n", (void *)tab); return 0; }
