// SPDX-License-Identifier: Apache-2.0
#include "x.h"
/* one array that grows by 256 bytes for each request for ever */
static char *a; static size_t n;
NOINLINE void more(void) {
  n += 256;
  a = realloc(a, n); /*LEAK*/
  memset(a + n - 256, 1, 256);
}
int main(int c, char **v) { double e = x_now() + x_secs(c, v); while (x_now() < e) { more(); x_nap(300); } printf("%zu\n", n); return 0; }
