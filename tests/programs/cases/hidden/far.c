// SPDX-License-Identifier: Apache-2.0
/* Each of 200 blocks is known by an address 4 KiB behind it: inside of others, but for the last. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
static uintptr_t kept[200];
__attribute__((noinline)) static void put(int i) {
  char *p = malloc(100);
  memset(p, 'x', 100);
  kept[i] = (uintptr_t)p + 4096;
}
__attribute__((noinline)) static void wipe(void) {
  volatile char b[8192];
  memset((void *)b, 0, sizeof b);
}
int main(void) {
  unsigned sum = 0;
  for (int i = 0; i < 200; i++) put(i);
  wipe();
  for (int i = 0; i < 200; i++) sum += *(char *)(kept[i] - 4096);
  return sum == 0;
}
