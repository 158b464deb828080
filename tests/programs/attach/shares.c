/* SPDX-License-Identifier: Apache-2.0 */
/* A process of its own, no thread, works in the memory of this one all the time. Prints WRONG when
 * it ends. */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static int work(void *unused) {
  (void)unused;
  for (;;) {
    void *volatile block = malloc(100);
    free(block);
  }
}

int main(void) {
  setvbuf(stdout, NULL, _IONBF, 0);
  free(malloc(1));
  char *stack = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  int status, child = clone(work, stack + (1 << 20), CLONE_VM | SIGCHLD, NULL);
  if (child < 0 || waitpid(child, &status, 0) == child)
    printf("WRONG: the child ended (%x)\n", status);
}
