// SPDX-License-Identifier: Apache-2.0
// Starts other programs by posix_spawn and by system(), and goes on itself.
// leaks: none
// stdout: 10 started\n
// processes: 11
// variants: O0 O2 musl
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "program.h"

extern char **environ;

int main(void) {
  int started = 0;
  char *arguments[] = {"true", NULL};
  for (int i = 0; i < 8; i++) {
    pid_t child;
    int status = 1;
    if (posix_spawnp(&child, "true", NULL, NULL, arguments, environ) == 0 &&
        waitpid(child, &status, 0) == child && status == 0)
      started++;
    void *block = malloc(64);
    keep(block);
    free(block);
  }
  for (int i = 0; i < 2; i++)
    started += system("exit 0") == 0;
  printf("%d started\n", started);
  return 0;
}
