// SPDX-License-Identifier: Apache-2.0
/* A timer's handler jumps out of whatever was going on (siglongjmp), thousands of times, while
 * blocks are allocated from ever new stacks and freed. With one thread glibc takes no lock for
 * that, so the program goes on; it must do so under leakscope. Ends with status 7. */
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static sigjmp_buf before;
static volatile sig_atomic_t may_jump, jumps;

static void on_alarm(int number) {
  (void)number;
  if (may_jump) {
    jumps++;
    siglongjmp(before, 1);
  }
}

static __attribute__((noinline)) void *allocate(unsigned depth, unsigned way) {
  void *block;
  if (!depth)
    return malloc(16 + (way & 63));
  switch (way & 3) { /* four return addresses */
  case 0: block = allocate(depth - 1, way >> 2); break;
  case 1: block = allocate(depth - 1, way >> 2); break;
  case 2: block = allocate(depth - 1, way >> 2); break;
  default: block = allocate(depth - 1, way >> 2); break;
  }
  __asm__ volatile("" : "+r"(block));
  return block;
}

int main(void) {
  struct sigaction action = {.sa_handler = on_alarm};
  struct itimerval often = {{0, 200}, {0, 200}}, never = {{0, 0}, {0, 0}};
  struct timespec start, now;
  sigaction(SIGALRM, &action, NULL);
  srand(1);
  clock_gettime(CLOCK_MONOTONIC, &start);
  setitimer(ITIMER_REAL, &often, NULL);
  do {
    if (!sigsetjmp(before, 1)) {
      may_jump = 1;
      for (int i = 0; i < 100; i++) {
        void *volatile block = allocate(8, (unsigned)rand());
        may_jump = 0;
        free(block);
        may_jump = 1;
      }
    }
    may_jump = 0;
    clock_gettime(CLOCK_MONOTONIC, &now);
  } while ((now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000 < 1500);
  setitimer(ITIMER_REAL, &never, NULL);
  puts(jumps > 100 ? "jumped often" : "hardly jumped");
  return 7;
}
