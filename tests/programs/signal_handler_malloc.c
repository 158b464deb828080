// SPDX-License-Identifier: Apache-2.0
// Leaks in a signal handler, while a timer interrupts allocations all the time.
// expect LEAK: leaking lost
// leaks: LEAK
// stdout: 400 signals\n
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>

#include "program.h"

static volatile sig_atomic_t signals, ticks;

static void on_usr1(int number) {
  (void)number;
  keep(malloc(70)); // LEAK HERE
  signals = signals + 1;
}

static void on_alarm(int number) {
  (void)number;
  ticks = ticks + 1;
}

int main(void) {
  struct sigaction action = {.sa_handler = on_usr1};
  sigaction(SIGUSR1, &action, NULL);
  action.sa_handler = on_alarm;
  action.sa_flags = SA_RESTART;
  sigaction(SIGALRM, &action, NULL);
  struct itimerval often = {{0, 200}, {0, 200}};
  setitimer(ITIMER_REAL, &often, NULL);
  for (int i = 0; i < 400; i++) {
    raise(SIGUSR1); // outside malloc: the handler may allocate
    for (int k = 0; k < 100; k++) {
      void *fine = malloc((size_t)k + 1);
      keep(fine);
      free(fine);
    }
    nap_us(800);
  }
  struct itimerval never = {{0, 0}, {0, 0}};
  setitimer(ITIMER_REAL, &never, NULL);
  printf("%d signals\n", (int)signals);
  return ticks == 0;
}
