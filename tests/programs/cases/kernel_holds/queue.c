// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
/* Blocks that the kernel alone knows of: the value of a signal that waits, of a robust list, of an
   eventfd; and a timer that calls a function. Two blocks of 555 bytes are lost. Argument: seconds. */
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
static void expired(union sigval value) { (void)value; }
static __attribute__((noinline)) void set_up(void) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGRTMIN + 3);
  pthread_sigmask(SIG_BLOCK, &set, NULL);
  sigqueue(getpid(), SIGRTMIN + 3, (union sigval){.sival_ptr = calloc(1, 301)});  /* of the process */
  pthread_sigqueue(pthread_self(), SIGRTMIN + 3, (union sigval){.sival_ptr = calloc(1, 302)});
  int fd = eventfd(0, 0);
  uint64_t passed = (uintptr_t)calloc(1, 303);
  write(fd, &passed, sizeof passed);
  passed = 0;
  struct sigevent e = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = expired,
                       .sigev_value.sival_ptr = calloc(1, 304)};
  timer_t t;
  timer_create(CLOCK_MONOTONIC, &e, &t);
  struct itimerspec s = {{1000, 0}, {1000, 0}};
  timer_settime(t, 0, &s, NULL);
  memset(&e, 0, sizeof e);
  memset(&t, 0, sizeof t);
  for (int i = 0; i < 2; i++) { char *volatile lost = calloc(1, 555); lost = NULL; }
}
static __attribute__((noinline)) void wipe(void) { volatile char b[8192]; memset((void *)b, 0, sizeof b); }
int main(int argc, char **argv) {
  set_up();
  wipe();
  puts("ready");
  fflush(stdout);
  if (argc > 1) sleep(atoi(argv[1]));
  return 0;
}
