// SPDX-License-Identifier: Apache-2.0
// A second thread works while the process ends in some way: how much does it still get done?
// endout exit|_exit|kill [MEGABYTES]: prints a line for each 5 ms that it worked on after the end began.
// kill: it is the second thread that sends SIGTERM to its own process, and goes on if it can.
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static volatile int over, kills;
static char *list;

static void *work(void *unused) {
  for (;;) {
    if (kills) {
      kill(getpid(), SIGTERM);
      over = 1;
    }
    if (over)
      write(1, "worked on\n", 10);
    usleep(5000);
  }
}

int main(int argc, char **argv) {
  for (size_t i = 0; i < (argc > 2 ? atoi(argv[2]) : 1) * 4096; i++) {
    char **block = malloc(240);
    *block = list;
    list = (char *)block;
  }
  pthread_t thread;
  pthread_create(&thread, 0, work, 0);
  usleep(100000);
  if (!strcmp(argv[1], "kill")) {
    kills = 1;
    pause();
  }
  over = 1;
  if (!strcmp(argv[1], "_exit"))
    _exit(3);
  exit(3);
}
