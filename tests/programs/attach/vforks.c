/* SPDX-License-Identifier: Apache-2.0 */
/* One thread waits in the kernel, again and again, for a child of its vfork that takes 2.5 s; the
 * other one allocates, and prints WRONG when it stood still for more than a second and a half. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static void *wait_often(void *unused) {
  for (;;) {
    usleep(1500000);
    if (vfork() == 0) {
      usleep(2500000);
      _exit(0);
    }
  }
  return unused;
}

static double now(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return at.tv_sec + at.tv_nsec / 1e9;
}

int main(void) {
  setvbuf(stdout, NULL, _IONBF, 0);
  pthread_t thread;
  pthread_create(&thread, NULL, wait_often, NULL);
  for (;;) {
    double before = now();
    void *volatile block = malloc(10);
    free(block);
    usleep(1000);
    if (now() - before > 1.5)
      printf("WRONG: stood still for %.2f s\n", now() - before);
  }
}
