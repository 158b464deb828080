/* SPDX-License-Identifier: Apache-2.0 */
/* Forks a child a second; each works on under a system call filter, in strict mode, for a minute. */
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

int main(void) {
  signal(SIGCHLD, SIG_IGN);
  for (int i = 1;; i++) {
    void *volatile block = malloc(77);
    free(block);
    usleep(1000);
    if (i % 1000 || fork())
      continue;
    prctl(PR_SET_SECCOMP, 1);
    for (int k = 0; k < 60000; k++) {
      block = malloc(50);
      free(block);
      for (volatile int wait = 0; wait < 1000000; wait++)
        continue;
    }
    for (;;)
      continue;
  }
}
