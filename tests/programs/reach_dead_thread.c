// SPDX-License-Identifier: Apache-2.0
// What only the stack and the thread-local storage of threads that have ended point to is lost.
// expect STACK: lost
// expect TLS: lost
// leaks: STACK TLS
// build: -pthread
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "program.h"

static __thread void *volatile in_tls;

static void *work(void *nothing) {
  void *volatile on_stack = malloc(444); // STACK HERE
  memset(on_stack, 1, 444);
  in_tls = malloc(555); // TLS HERE
  memset(in_tls, 1, 555);
  keep(on_stack);
  return nothing;
}

int main(void) {
  for (int i = 0; i < 3; i++) {
    pthread_t thread;
    pthread_create(&thread, NULL, work, NULL);
    pthread_join(thread, NULL);
  }
  return 0;
}
