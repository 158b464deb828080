// SPDX-License-Identifier: Apache-2.0
/* Coroutine stacks that are cut anew: recut WHERE HOW. A coroutine allocates deep in 64 KiB; then
 * the upper 48 KiB go (HOW) and smaller coroutines stand at the same addresses below. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define BIG (1u << 16)
#define SMALL (1u << 14)
#define NOTAIL __attribute__((noinline, optimize("no-optimize-sibling-calls")))

static __thread ucontext_t outside, inside;
static char *volatile target;
static const char *how;
static volatile int forks;

NOTAIL static void leaf(void) {
  for (int i = 0; i < 5; i++) {
    void *volatile p = malloc(24);
    free(p);
  }
  if (forks) {
    forks = 0;
    pid_t child = fork();
    int status = 0;
    if (child)
      waitpid(child, &status, 0);
    else
      for (int i = 0; i < 100; i++)
        free(malloc(100 + i));
    if (!child)
      _exit(0);
    printf("child %d\n", status);
  }
}
NOTAIL static void descend(void) {
  volatile char room[2000];
  room[0] = 1;
  if ((char *)__builtin_frame_address(0) - target >= 2200)
    descend();
  else
    leaf();
  room[1] = 2;
}
static void coroutine(void) {
  descend();
  swapcontext(&inside, &outside);
}
static void run(char *stack, size_t bytes) {
  getcontext(&inside);
  inside.uc_stack.ss_sp = stack;
  inside.uc_stack.ss_size = bytes;
  inside.uc_link = &outside;
  makecontext(&inside, coroutine, 0);
  swapcontext(&outside, &inside);
}

static void *take(void *at) {
  char *upper = at;
  size_t bytes = BIG - SMALL;
  if (!strcmp(how, "unmap"))
    munmap(upper, bytes);
  else if (!strcmp(how, "protect"))
    mprotect(upper, bytes, PROT_NONE);
  else if (!strcmp(how, "shrink"))
    mremap(upper - SMALL, BIG, SMALL, 0);
  else if (!strcmp(how, "replace"))
    mmap(upper, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  else if (!strcmp(how, "call"))
    syscall(SYS_munmap, upper, bytes);
  else if (!strcmp(how, "bare")) {
#ifdef __x86_64__
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(SYS_munmap), "D"(upper), "S"(bytes) : "rcx", "r11", "memory");
#else
    register long x8 __asm__("x8") = SYS_munmap, x0 __asm__("x0") = (long)upper, x1 __asm__("x1") = bytes;
    __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1) : "memory");
#endif
  }
  return NULL;
}

static void *work(void *pool) {
  char *stack = pool;
  target = stack + SMALL / 2;
  run(stack, BIG);
  if (!strcmp(how, "other")) {
    pthread_t thread;
    how = "unmap";
    pthread_create(&thread, NULL, take, stack + SMALL);
    pthread_join(thread, NULL);
  } else {
    take(stack + SMALL);
  }
  for (int offset = 0; offset < 2100; offset += 16)
    run(stack, SMALL - offset);
  return NULL;
}

static volatile sig_atomic_t handled;
static void on_signal(int number) {
  volatile char room[4000];
  room[0] = 1;
  leaf();
  handled++;
}

int main(int argc, char **argv) {
  const char *where = argv[1];
  how = argv[2];
  char *pool = mmap(NULL, BIG, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  pthread_t thread;
  if (!strcmp(where, "main")) {
    work(pool);
  } else if (!strcmp(where, "worker")) { /* its first allocation is on the coroutine's stack */
    pthread_create(&thread, NULL, work, pool);
    pthread_join(thread, NULL);
  } else if (!strcmp(where, "fork")) {
    forks = 1;
    pthread_create(&thread, NULL, work, pool);
    pthread_join(thread, NULL);
  } else if (!strcmp(where, "given")) { /* a thread on the same pool, and coroutines after it */
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    char *both = mmap(NULL, 8 * BIG, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pthread_attr_setstack(&attributes, both + 4 * BIG, 4 * BIG);
    pthread_create(&thread, &attributes, work, both + BIG);
    pthread_join(thread, NULL);
    work(both + 5 * BIG);
  } else if (!strcmp(where, "signal")) {
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK};
    sigaction(SIGUSR1, &action, NULL);
    stack_t alternate = {.ss_sp = pool, .ss_size = BIG};
    sigaltstack(&alternate, NULL);
    raise(SIGUSR1);
    alternate.ss_size = SMALL;
    sigaltstack(&alternate, NULL);
    take(pool + SMALL);
    for (int i = 0; i < 20; i++)
      raise(SIGUSR1);
    stack_t none = {.ss_flags = SS_DISABLE};
    sigaltstack(&none, NULL);
  }
  puts("fine");
  return 0;
}
