// SPDX-License-Identifier: Apache-2.0
// Each short thread leaves its block behind in thread-local storage without a destructor.
// expect LEAK: leaking lost
// leaks: LEAK
// build: -pthread
#include <pthread.h>
#include <stdlib.h>

#include "program.h"

static __thread char *scratch;

static void *request(void *argument) {
  scratch = malloc(1000); // LEAK HERE
  scratch[0] = 1;
  keep(scratch);
  void *fine = malloc(30);
  keep(fine);
  free(fine);
  return argument;
}

int main(void) {
  for (int i = 0; i < 400; i++) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, request, NULL) != 0 || pthread_join(thread, NULL) != 0)
      return 1;
    nap_us(1000);
  }
  return 0;
}
