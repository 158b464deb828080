// SPDX-License-Identifier: Apache-2.0
/* 80 blocks of 20,000 B are lost: about three samples at one in 512 KiB. */
#include <stdlib.h>
static void *volatile keep[1000];
__attribute__((noinline)) static void leak(void) {
  volatile char *p = malloc(20000);
  p[0] = 1;
}
int main(void) {
  for (int i = 0; i < 80; i++) leak();
  for (int i = 0; i < 1000; i++) keep[i] = malloc(100);
  for (int i = 0; i < 20000; i++) free(malloc(3000));
  return keep[0] == 0;
}
