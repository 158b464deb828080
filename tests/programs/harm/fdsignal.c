// SPDX-License-Identifier: Apache-2.0
// A thread forks; in the child a signal handler asks all the time which descriptor number is the lowest
// free one, from before the child's first allocation on. usage: fdsignal FORKS; prints "0 of FORKS"
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile sig_atomic_t wrong;
static int lowest, forks, bad;
static void *volatile sink;

static void ask(int number) {
  int fd = dup(0);
  if (fd != lowest)
    wrong = 1;
  close(fd);
}

static void *small(void *unused) {
  for (int i = 0; i < 20; i++)
    sink = malloc(333);
  return unused;
}

static void *forker(void *unused) {
  for (int i = 0; i < forks; i++) {
    pid_t child = fork();
    if (!child) {
      struct itimerval soon = {{0, 50}, {0, 50}};
      pthread_t thread;
      signal(SIGALRM, ask);
      setitimer(ITIMER_REAL, &soon, NULL);
      small(NULL);
      sigset_t alarm;
      sigemptyset(&alarm);
      sigaddset(&alarm, SIGALRM);
      pthread_sigmask(SIG_BLOCK, &alarm, NULL); /* or two threads would ask at once */
      pthread_create(&thread, NULL, small, NULL);
      pthread_sigmask(SIG_UNBLOCK, &alarm, NULL);
      pthread_join(thread, NULL);
      _exit(wrong);
    }
    int status;
    waitpid(child, &status, 0);
    bad += status != 0;
  }
  return unused;
}

int main(int count, char **argument) {
  pthread_t thread;
  lowest = dup(0);
  close(lowest);
  forks = atoi(argument[1]);
  pthread_create(&thread, NULL, forker, NULL);
  pthread_join(thread, NULL);
  printf("%d of %d\n", bad, forks);
  return bad;
}
