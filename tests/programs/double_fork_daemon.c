// SPDX-License-Identifier: Apache-2.0
// Becomes a daemon by two forks and leaks there; the program that was started ends at once.
// expect LEAK: leaking lost
// leaks: LEAK
// processes: 3
#include <fcntl.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "program.h"

static void *volatile first;

static void daemon_work(void) {
  for (int i = 0; i < 500; i++) {
    keep(malloc(75)); // LEAK HERE
    nap_us(1000);
  }
}

int main(void) {
  first = malloc(1); // an allocation of the first process, so that it has a recording
  pid_t child = fork();
  if (child != 0) {
    int status = 1;
    waitpid(child, &status, 0);
    return status;
  }
  setsid();
  void *brief = malloc(10);
  keep(brief);
  free(brief);
  if (fork() != 0)
    _exit(0);
  int null = open("/dev/null", O_RDWR);
  for (int fd = 0; fd < 3; fd++)
    dup2(null, fd);
  for (int fd = 3; fd < 256; fd++)
    close(fd);
  daemon_work();
  _exit(0);
}
