// SPDX-License-Identifier: Apache-2.0
// Three thousand short threads, joined or detached, none of which keeps anything.
// leaks: none
// stdout: 3000 threads\n
// build: -pthread
// variants: O0 O2 musl
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "program.h"

static int done;

static void *brief(void *argument) {
  for (int i = 0; i < 10; i++) {
    void *block = malloc(64);
    keep(block);
    free(block);
  }
  __atomic_add_fetch(&done, 1, __ATOMIC_RELEASE);
  return argument;
}

int main(void) {
  for (int i = 0; i < 3000; i++) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, brief, NULL) != 0)
      return 1;
    if (i % 2 == 0)
      pthread_join(thread, NULL);
    else
      pthread_detach(thread);
  }
  while (__atomic_load_n(&done, __ATOMIC_ACQUIRE) < 3000)
    nap_us(1000);
  nap_us(20000); // the last detached ones end
  printf("%d threads\n", done);
  return 0;
}
