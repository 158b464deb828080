// SPDX-License-Identifier: Apache-2.0
// Two hundred threads allocate at once; what one frees another allocated; one line leaks.
// expect LEAK: leaking lost
// leaks: LEAK
// stdout: 200 threads\n
// build: -pthread
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "program.h"

enum { THREADS = 200, TURNS = 30 };

static void *exchange; // a block handed from thread to thread

static void *worker(void *argument) {
  for (int i = 0; i < TURNS; i++) {
    for (int k = 0; k < 20; k++) {
      void *mine = malloc((size_t)(k + 1) * 8);
      free(__atomic_exchange_n(&exchange, mine, __ATOMIC_ACQ_REL));
    }
    keep(malloc(120)); // LEAK HERE
    nap_us(10000);
  }
  return argument;
}

int main(void) {
  pthread_t threads[THREADS];
  int started = 0;
  for (; started < THREADS; started++)
    if (pthread_create(&threads[started], NULL, worker, NULL) != 0)
      break;
  for (int i = 0; i < started; i++)
    pthread_join(threads[i], NULL);
  free(exchange);
  printf("%d threads\n", started);
  return 0;
}
