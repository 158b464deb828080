/* SPDX-License-Identifier: Apache-2.0 */
/* A small stack with data right below it, in which another thread counts all the time: prints WRONG
 * when that changes. The stack is a coroutine's of the first thread, in the heap; or, with an
 * argument, a thread's, and the first thread ends. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#define WORDS 4096
#define STACK 32768

static volatile long *data;
static ucontext_t home, coroutine;

static void *count(void *unused) {
  for (long round = 1;; round++)
    for (int i = 0; i < WORDS; i++) {
      if (data[i] != round - 1) {
        puts("WRONG: not what was written");
        _exit(9);
      }
      data[i] = round;
    }
  return unused;
}

static void work(void) {
  for (;;) {
    void *volatile block = malloc(50);
    free(block);
    for (volatile int i = 0; i < 1000; i++)
      continue;
  }
}

static void *work_apart(void *unused) {
  work();
  return unused;
}

int main(int arguments, char **unused) {
  (void)unused;
  setvbuf(stdout, NULL, _IONBF, 0);
  char *both = arguments > 1 ? mmap(NULL, sizeof(long) * WORDS + STACK, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
                             : malloc(sizeof(long) * WORDS + STACK / 2);
  char *stack = both + sizeof(long) * WORDS;
  memset(both, 0, sizeof(long) * WORDS);
  data = (void *)both;
  pthread_t counter, worker;
  pthread_create(&counter, NULL, count, NULL);
  if (arguments > 1) {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstack(&attributes, stack, STACK);
    pthread_create(&worker, &attributes, work_apart, NULL);
    pthread_exit(NULL);
  }
  getcontext(&coroutine);
  coroutine.uc_stack.ss_sp = stack;
  coroutine.uc_stack.ss_size = STACK / 2;
  coroutine.uc_link = &home;
  makecontext(&coroutine, work, 0);
  swapcontext(&home, &coroutine);
}
