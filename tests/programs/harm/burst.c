// SPDX-License-Identifier: Apache-2.0
// burst N: N children wait, then end all at once. Prints the milliseconds until the last one is gone.
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

int main(int argc, char **argv) {
  int ready[2], go[2], n = atoi(argv[1]);
  pipe(ready);
  pipe(go);
  for (int i = 0; i < n; i++)
    if (fork() == 0) {
      char c;
      close(go[1]);
      for (int j = 0; j < 1000; j++)
        *(volatile char *)malloc(100) = 1;
      usleep(50000);
      write(ready[1], "r", 1);
      read(go[0], &c, 1);
      exit(0);
    }
  char c;
  for (int i = 0; i < n; i++)
    read(ready[0], &c, 1);
  double start = now();
  close(go[0]);
  close(go[1]);
  while (wait(0) > 0)
    ;
  printf("%.0f\n", now() - start);
  return 0;
}
