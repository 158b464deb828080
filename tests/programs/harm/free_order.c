// SPDX-License-Identifier: Apache-2.0
/* Blocks that are all free at the end, in an order of chance; argument: how many. */
#include <stdlib.h>
void *keep;
int main(int argc, char **argv) {
  (void)argc;
  int n = atoi(argv[1]);
  keep = malloc(100);
  void **p = malloc(n * sizeof *p);
  for (int i = 0; i < n; i++) p[i] = malloc(32);
  unsigned long seed = 1;
  for (int i = n - 1; i > 0; i--) {
    seed = seed * 6364136223846793005ul + 1442695040888963407ul;
    int other = (int)((seed >> 33) % (unsigned)(i + 1));
    void *swap = p[i]; p[i] = p[other]; p[other] = swap;
  }
  for (int i = 0; i < n; i++) free(p[i]);
  free(p);
  return 0;
}
