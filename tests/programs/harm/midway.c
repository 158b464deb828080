// SPDX-License-Identifier: Apache-2.0
/* Processes and threads that end in a handler while they allocate from ever new stacks.
 * `_exit`, `exit`: COUNT children are ended by their timer's handler in that way, with status 5.
 * `thread`: COUNT threads are ended by pthread_exit in a handler, while others go on.
 * `away`: a thread jumps out of its work and never allocates again, while others go on.
 * Ends with status 7. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *way;
static void *volatile shown;
static volatile int over, ready;
static __thread sigjmp_buf before;

static void end_child(int number) {
  (void)number;
  if (!strcmp(way, "exit"))
    exit(5);
  _exit(5);
}

static void end_thread(int number) {
  (void)number;
  if (!strcmp(way, "away"))
    siglongjmp(before, 1);
  pthread_exit(NULL);
}

static __attribute__((noinline)) void *allocate(unsigned depth, unsigned turns) {
  void *block;
  if (!depth)
    return malloc(16 + (turns & 63));
  switch (turns & 3) { /* four return addresses */
  case 0: block = allocate(depth - 1, turns >> 2); break;
  case 1: block = allocate(depth - 1, turns >> 2); break;
  case 2: block = allocate(depth - 1, turns >> 2); break;
  default: block = allocate(depth - 1, turns >> 2); break;
  }
  __asm__ volatile("" : "+r"(block));
  return block;
}

static void work(unsigned seed, unsigned long rounds) {
  for (unsigned long i = 0; i < rounds; i++) {
    void *block = allocate(8, (unsigned)rand_r(&seed));
    shown = block;
    free(block);
  }
}

static void *thread(void *seed) {
  if (sigsetjmp(before, 1))
    while (!over) /* no allocation any more */
      usleep(1000);
  else {
    ready = 1;
    work((unsigned)(size_t)seed, -1ul);
  }
  return NULL;
}

int main(int argc, char **argv) {
  int count = atoi(argv[2]), bad = 0;
  unsigned seed = 1;
  pthread_t threads[1000];
  way = argv[1];
  setvbuf(stdout, NULL, _IONBF, 0);
  struct sigaction action = {.sa_handler = end_child};
  if (!strcmp(way, "thread") || !strcmp(way, "away"))
    action.sa_handler = end_thread;
  sigaction(SIGALRM, &action, NULL);
  for (int i = 0; i < count; i++) {
    unsigned moment = 500 + (unsigned)rand_r(&seed) % 3000;
    if (action.sa_handler == end_thread) {
      ready = 0;
      pthread_create(&threads[i], NULL, thread, (void *)(size_t)(i + 1));
      while (!ready)
        usleep(100);
      usleep(moment);
      pthread_kill(threads[i], SIGALRM);
      if (!strcmp(way, "thread"))
        pthread_join(threads[i], NULL);
      work(seed, 50);
      continue;
    }
    pid_t child = fork();
    if (!child) {
      struct itimerval once = {{0, 0}, {0, moment}};
      setitimer(ITIMER_REAL, &once, NULL);
      work(seed, -1ul);
    }
    int status;
    waitpid(child, &status, 0);
    bad += !WIFEXITED(status) || WEXITSTATUS(status) != 5;
  }
  over = 1;
  if (!strcmp(way, "away"))
    for (int i = 0; i < count; i++)
      pthread_join(threads[i], NULL);
  printf("%d ended otherwise\n", bad);
  return 7;
}
