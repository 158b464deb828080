// SPDX-License-Identifier: Apache-2.0
// Leaks in a signal handler that runs on an alternative stack.
// expect LEAK: leaking lost
// leaks: LEAK
#include <signal.h>
#include <stdlib.h>

#include "program.h"

static void on_usr1(int number) {
  (void)number;
  keep(malloc(70)); // LEAK HERE
}

int main(void) {
  stack_t other = {.ss_sp = malloc(65536), .ss_size = 65536};
  if (sigaltstack(&other, NULL) != 0)
    return 1;
  struct sigaction action = {.sa_handler = on_usr1, .sa_flags = SA_ONSTACK};
  sigaction(SIGUSR1, &action, NULL);
  for (int i = 0; i < 400; i++) {
    raise(SIGUSR1);
    nap_us(1000);
  }
  return 0;
}
