// SPDX-License-Identifier: Apache-2.0
/* WAY COUNT: a timer's handler forks COUNT times while the program allocates from ever new stacks,
 * maps and unmaps; the child returns from the handler, goes on in the same way for a while and ends
 * with status 5. WAY: fork, _Fork, or syscall. With one thread nothing of this is forbidden. All that
 * was allocated is freed at the end; the status is 7. */
#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *way;
static volatile int forks, wanted, otherwise, is_child, is_armed;
static char *blocks[64];

static pid_t fork_in_some_way(void) {
  if (!strcmp(way, "_Fork"))
    return _Fork();
  if (!strcmp(way, "syscall"))
    return (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
  return fork();
}

static void on_alarm(int number) {
  (void)number;
  int saved = errno, status = 0;
  if (is_child || forks >= wanted)
    return;
  forks++;
  is_armed = 0;
  pid_t child = fork_in_some_way();
  if (!child) {
    is_child = 1;
    signal(SIGALRM, SIG_DFL);
    alarm(30);
  } else {
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
      ;
    otherwise += status != 5 << 8;
  }
  errno = saved;
}

static __attribute__((noinline)) char *change(unsigned depth, unsigned draw, char *old) {
  char *block;
  if (!depth) {
    size_t bytes = 16 + (draw & 511);
    switch (draw >> 9 & 7) {
    case 0: return realloc(old, bytes);
    case 1: return free(old), calloc(1, bytes);
    case 2: return free(old), memalign(64, bytes);
    case 3: return free(old), NULL;
    default: return free(old), malloc(bytes);
    }
  }
  if (draw >> 16 & 1) /* two return addresses */
    block = change(depth - 1, draw ^ draw >> 1, old);
  else
    block = change(depth - 1, draw ^ draw >> 1, old);
  __asm__ volatile("" : "+r"(block));
  return block;
}

int main(int argc, char **argv) {
  struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
  unsigned draw = 1, after = 0;
  if (argc != 3)
    return 2;
  way = argv[1];
  wanted = atoi(argv[2]);
  sigaction(SIGALRM, &action, NULL);
  while (is_child ? after++ < 1000 : forks < wanted) {
    draw = draw * 1103515245 + 12345;
    unsigned place = draw >> 26;
    if (!is_armed && !is_child) {
      struct itimerval soon = {{0, 0}, {0, 20 + (draw >> 8) % 500}};
      is_armed = 1;
      setitimer(ITIMER_REAL, &soon, NULL);
    }
    if (blocks[place] && blocks[place][0] != (char)place)
      return 3;
    blocks[place] = change(7, draw, blocks[place]);
    if (blocks[place])
      blocks[place][0] = (char)place;
    if (place < 16) {
      char *map = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      map = mremap(map, 8192, 16384, MREMAP_MAYMOVE);
      mprotect(map, 4096, PROT_READ);
      munmap(map, 16384);
    }
  }
  if (is_child)
    _exit(5);
  for (unsigned i = 0; i < 64; i++)
    free(blocks[i]);
  fprintf(stderr, "%d forks\n", forks);
  printf("%d ended otherwise\n", otherwise);
  fflush(stdout);
  return 7;
}
