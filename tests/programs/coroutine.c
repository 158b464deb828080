// SPDX-License-Identifier: Apache-2.0
// Runs on stacks of its own making (makecontext, swapcontext) and leaks there.
// expect LEAK: leaking lost
// leaks: LEAK
// stdout: 800 switches\n
#include <stdio.h>
#include <stdlib.h>
#include <ucontext.h>

#include "program.h"

enum { STACK = 65536, TURNS = 400 };

static ucontext_t outside, inside[2];
static int switches;

static void coroutine(void) {
  for (;;) {
    void *fine = malloc(40);
    keep(fine);
    keep(malloc(56)); // LEAK HERE
    free(fine);
    switches++;
    swapcontext(&inside[switches & 1 ? 0 : 1], &outside);
  }
}

int main(void) {
  char *stacks[2];
  for (int i = 0; i < 2; i++) {
    stacks[i] = malloc(STACK);
    getcontext(&inside[i]);
    inside[i].uc_stack.ss_sp = stacks[i];
    inside[i].uc_stack.ss_size = STACK;
    makecontext(&inside[i], coroutine, 0);
  }
  for (int i = 0; i < TURNS; i++) {
    swapcontext(&outside, &inside[0]);
    swapcontext(&outside, &inside[1]);
    nap_us(1000);
  }
  printf("%d switches\n", switches);
  free(stacks[0]);
  free(stacks[1]);
  return 0;
}
