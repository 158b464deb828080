// SPDX-License-Identifier: Apache-2.0
/* A thread that allocates on a coroutine first and then on its own stack. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

static ucontext_t outside, inside;
static char *volatile kept;
static void coroutine(void) {
  free(malloc(10));
  swapcontext(&inside, &outside);
}
static __attribute__((noinline)) void loses(void) {
  for (int i = 0; i < 500; i++) {
    kept = malloc(33);
    kept[0] = 1;
  }
  kept = NULL;
}
static void *work(void *stack) {
  getcontext(&inside);
  inside.uc_stack.ss_sp = stack;
  inside.uc_stack.ss_size = 65536;
  inside.uc_link = &outside;
  makecontext(&inside, coroutine, 0);
  swapcontext(&outside, &inside);
  loses();
  return kept;
}
int main(void) {
  pthread_t thread;
  pthread_create(&thread, NULL, work, mmap(NULL, 65536, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  pthread_join(thread, NULL);
  puts("done");
  return 0;
}
