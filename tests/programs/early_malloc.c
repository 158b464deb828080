// SPDX-License-Identifier: Apache-2.0
// Allocates before main, in the earliest constructor and in .preinit_array, and after main.
// expect EARLY: one-off lost
// leaks: none
// stdout: early 1, late\n
// variants: O0 O2 aarch64
#include <stdio.h>
#include <stdlib.h>

#include "program.h"

static char *early;

static void before_everything(int argc, char **argv, char **environment) {
  (void)argc, (void)argv, (void)environment;
  void *block = malloc(99);
  keep(block);
  free(block);
}

__attribute__((section(".preinit_array"), used)) static void (*const hook)(int, char **, char **) =
    before_everything;

__attribute__((constructor(101))) static void constructor(void) {
  early = malloc(2000); // EARLY HERE
  early[0] = 1;
}

__attribute__((destructor(101))) static void destructor(void) {
  void *block = malloc(77);
  keep(block);
  free(block);
  puts(", late");
}

int main(void) {
  for (int i = 0; i < 200; i++)
    nap_us(1000);
  printf("early %d", early[0]);
  return 0;
}
