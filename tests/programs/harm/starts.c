// SPDX-License-Identifier: Apache-2.0
// Starts a program in every way there is, each time with an environment that has nothing in it.
// Expected: the program runs each time; under leakscope each of them is recorded.
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char *nothing[] = {NULL};
static char *file;
static char *arguments[] = {"started", NULL};

static void start(int how) {
  int fd = open(file, O_RDONLY | O_CLOEXEC);
  if (how < 4)
    clearenv();
  switch (how) {
  case 0: execl(file, "started", (char *)NULL); break;
  case 1: execv(file, arguments); break;
  case 2: execvp(file, arguments); break;
  case 3: execlp(file, "started", (char *)NULL); break;
  case 4: execle(file, "started", (char *)NULL, nothing); break;
  case 5: execve(file, arguments, nothing); break;
  case 6: execvpe(file, arguments, nothing); break;
  case 7: fexecve(fd, arguments, nothing); break;
  case 8: execveat(AT_FDCWD, file, arguments, nothing, 0); break;
  case 9: execve(file, arguments, NULL); break;
  }
  _exit(99);
}

static int in_borrowed_memory(void *unused) {
  execve(file, arguments, (char **)unused);
  _exit(99);
}

int main(int count, char **words) {
  setvbuf(stdout, NULL, _IONBF, 0);
  int pid, status;
  if (count < 2) { /* started */
    char *lost = malloc(333);
    memset(lost, 1, 333);
    lost = NULL;
    return 7;
  }
  file = words[1];
  char *none[] = {"none", NULL};
  if (execve("/nowhere/none", none, nothing) != -1)
    return 1;
  perror("execve");
  for (int how = 0; how < 10; how++) {
    if (!(pid = fork()))
      start(how);
    waitpid(pid, &status, 0);
    printf("%d: %x\n", how, status);
  }
  static char stack[65536] __attribute__((aligned(64)));
  pid = clone(in_borrowed_memory, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, nothing);
  waitpid(pid, &status, 0);
  printf("clone: %x\n", status);
  if (!(pid = vfork())) {
    execve(file, arguments, nothing);
    _exit(99);
  }
  waitpid(pid, &status, 0);
  printf("vfork: %x\n", status);
  if (posix_spawn(&pid, file, NULL, NULL, arguments, nothing))
    return 2;
  waitpid(pid, &status, 0);
  printf("posix_spawn: %x\n", status);
  if (posix_spawnp(NULL, file, NULL, NULL, arguments, nothing))
    return 3;
  wait(&status);
  printf("posix_spawnp: %x, %d\n", status, posix_spawn(&pid, "/nowhere", NULL, NULL, none, nothing));
  return 0;
}
