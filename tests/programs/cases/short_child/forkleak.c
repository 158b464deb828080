// SPDX-License-Identifier: Apache-2.0
#include "x.h"
#include <sys/wait.h>
NOINLINE void child(void) {
  for (int i = 0; i < 30; i++) { char *p = malloc(100); /*LEAK*/
    USE(p); }
  x_wipe();
}
int main(void) { char *keep = malloc(10); if (!fork()) { child(); exit(0); } int s; wait(&s); free(keep); return 0; }
