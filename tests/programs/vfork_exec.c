// SPDX-License-Identifier: Apache-2.0
// Starts itself again by vfork and exec, twenty times; each start is a process of its own.
// leaks: none
// stdout: 20 started\n
// processes: 21
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "program.h"

int main(int argc, char **argv) {
  if (argc > 1) {
    void *block = malloc(300);
    keep(block);
    free(block);
    return 0;
  }
  int started = 0;
  char *arguments[] = {argv[0], "child", NULL};
  for (int i = 0; i < 20; i++) {
    void *block = malloc(64);
    keep(block);
    pid_t child = vfork();
    if (child == 0) {
      execv("/proc/self/exe", arguments);
      _exit(9);
    }
    int status = 1;
    if (waitpid(child, &status, 0) == child && status == 0)
      started++;
    free(block);
  }
  printf("%d started\n", started);
  return 0;
}
