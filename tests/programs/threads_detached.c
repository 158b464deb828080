// SPDX-License-Identifier: Apache-2.0
// Thirty threads that run at the same time, are detached before or after their start, and end.
// leaks: none
// stdout: 30 threads\n
// build: -pthread
// variants: O0 O2 musl
#include <pthread.h>
#include <stdio.h>

#include "program.h"

static int begun, done;

static void *brief(void *argument) {
  __atomic_add_fetch(&begun, 1, __ATOMIC_RELEASE);
  while (__atomic_load_n(&begun, __ATOMIC_ACQUIRE) < 30)
    nap_us(1000);
  __atomic_add_fetch(&done, 1, __ATOMIC_RELEASE);
  return argument;
}

int main(void) {
  pthread_attr_t detached;
  pthread_attr_init(&detached);
  pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
  for (int i = 0; i < 30; i++) {
    pthread_t thread;
    if (pthread_create(&thread, i % 2 == 0 ? &detached : NULL, brief, NULL) != 0)
      return 1;
    if (i % 2 != 0)
      pthread_detach(thread);
  }
  while (__atomic_load_n(&done, __ATOMIC_ACQUIRE) < 30)
    nap_us(1000);
  nap_us(50000); // the last ones end
  pthread_attr_destroy(&detached);
  printf("%d threads\n", done);
  return 0;
}
