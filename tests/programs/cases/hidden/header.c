// SPDX-License-Identifier: Apache-2.0
/* Of 50 blocks only the place behind their header is known. */
#include <stdlib.h>
#include <string.h>
struct header { long words[12]; };
static void *kept[50];
__attribute__((noinline)) static void *take(size_t size) {
  struct header *h = malloc(sizeof *h + size);
  h->words[0] = 1;
  return h + 1;
}
__attribute__((noinline)) static void wipe(void) {
  volatile char b[8192];
  memset((void *)b, 0, sizeof b);
}
int main(void) {
  unsigned sum = 0;
  for (int i = 0; i < 50; i++) kept[i] = take(100);
  wipe();
  for (int i = 0; i < 50; i++) sum += *(char *)kept[i];
  return sum == 1;
}
