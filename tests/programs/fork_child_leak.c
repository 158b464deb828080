// SPDX-License-Identifier: Apache-2.0
// Only the forked child leaks; the parent waits and is clean.
// expect LEAK: leaking lost
// leaks: LEAK
// processes: 2
// variants: O0 O2 musl
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "program.h"

int main(void) {
  void *before = malloc(5000); // the child inherits it and may free it
  pid_t child = fork();
  if (child == 0) {
    free(before);
    for (int i = 0; i < 400; i++) {
      keep(malloc(75)); // LEAK HERE
      nap_us(1000);
    }
    return 0;
  }
  int status = 1;
  waitpid(child, &status, 0);
  free(before);
  return status;
}
