/* SPDX-License-Identifier: Apache-2.0 */
/* Calls exec when it gets SIGUSR1, and says so: then everything lies elsewhere. Ends at SIGUSR2. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv) {
  sigset_t both;
  int which;
  sigemptyset(&both);
  sigaddset(&both, SIGUSR1);
  sigaddset(&both, SIGUSR2);
  sigprocmask(SIG_BLOCK, &both, NULL);
  puts("ready");
  fflush(stdout);
  for (;;) {
    void *volatile block = malloc(1000);
    struct timespec time = {0, 1000000};
    which = sigtimedwait(&both, NULL, &time);
    free(block);
    if (which == SIGUSR1)
      execl("/proc/self/exe", "execs", (char *)NULL);
    if (which == SIGUSR2)
      return 7;
  }
}
