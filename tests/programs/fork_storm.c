// SPDX-License-Identifier: Apache-2.0
// Forks forty children from a program with threads; each allocates, frees and ends.
// leaks: none
// stdout: 40 children\n
// processes: 41
// build: -pthread
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "program.h"

static int stop;

static void *busy(void *argument) { // the forks happen in the middle of this
  while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
    for (int i = 0; i < 200; i++) {
      void *block = malloc(100);
      keep(block);
      free(block);
    }
    nap_us(200);
  }
  return argument;
}

int main(void) {
  pthread_t threads[3];
  for (int i = 0; i < 3; i++)
    pthread_create(&threads[i], NULL, busy, NULL);
  int children = 0;
  for (int i = 0; i < 40; i++) {
    pid_t child = fork();
    if (child == 0) {
      for (int k = 0; k < 500; k++) {
        void *block = malloc(200);
        keep(block);
        free(block);
      }
      _exit(0);
    }
    int status;
    if (child > 0 && waitpid(child, &status, 0) == child && status == 0)
      children++;
  }
  __atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
  for (int i = 0; i < 3; i++)
    pthread_join(threads[i], NULL);
  printf("%d children\n", children);
  return 0;
}
