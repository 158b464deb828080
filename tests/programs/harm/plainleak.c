// SPDX-License-Identifier: Apache-2.0
/* Loses 200 blocks and ends with 4; makes hardly a system call. */
#include <stdlib.h>
#include <unistd.h>
static __attribute__((noinline)) void work(void) {
  for (int i = 0; i < 200; i++) {
    char *volatile lost = malloc(40 + i % 50);
    lost[0] = 1;
    lost = NULL;
  }
}
int main(void) {
  work();
  return write(1, "plain done\n", 11) == 11 ? 4 : 5;
}
