// SPDX-License-Identifier: Apache-2.0
/* COUNT times a handler forks while the program is inside realloc or calloc; the child returns from
 * the handler, goes on allocating and ends with status 0. The program is alone in its process, so
 * that nothing of this is forbidden to it by a lock. Ends with status 7. */
#define _GNU_SOURCE
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile int forks, otherwise;
static volatile int is_child, count;

/* The allocator itself touches it: the fault is the signal, so it always comes in the middle. */
static char *page;

static void on_fault(int number) {
  (void)number;
  mprotect(page, 4096, PROT_READ | PROT_WRITE);
  if (is_child)
    _exit(1); /* not by us */
  forks++;
  pid_t child = fork();
  if (!child) {
    is_child = 1;
    return;
  }
  int status;
  if (waitpid(child, &status, 0) != child || status)
    otherwise++;
}

int main(int argc, char **argv) {
  int wanted = argc > 1 ? atoi(argv[1]) : 12;
  struct sigaction action = {.sa_handler = on_fault};
  sigaction(SIGSEGV, &action, NULL);
  mallopt(M_MMAP_THRESHOLD, 16 << 20);
  while (forks < wanted && !is_child) {
    char *volatile big = malloc(300000), *volatile after = malloc(5000); /* it cannot grow where it is */
    int before = forks;
    page = (char *)(((unsigned long)big + 150000) & ~4095ul);
    if (forks % 2) {
      mprotect(page, 4096, PROT_NONE);
      big = realloc(big, 600000); /* copies */
    } else {
      free(big);
      mprotect(page, 4096, PROT_NONE);
      big = calloc(1, 300000); /* clears */
    }
    mprotect(page, 4096, PROT_READ | PROT_WRITE);
    free(big);
    free(after);
    if (forks == before && !is_child)
      return 3;
  }
  if (is_child) {
    for (int i = 0; i < 1000; i++)
      free(malloc(16 + i));
    _exit(0);
  }
  printf("%d forks, %d ended otherwise\n", forks, otherwise);
  return 7;
}
