// SPDX-License-Identifier: Apache-2.0
/* load KIND TIMES: work that makes the kernel allocate; prints its processor time in nanoseconds
 * for one time, children included. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static double spent(void) {
  double sum = 0;
  for (int whose = 0; whose < 2; whose++) {
    struct rusage usage;
    getrusage(whose ? RUSAGE_CHILDREN : RUSAGE_SELF, &usage);
    sum += (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e9 +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e3;
  }
  return sum;
}

int main(int argc, char **argv) {
  if (argc != 3)
    return 2;
  long times = atol(argv[2]);
  double before = spent();
  for (long i = 0; i < times; i++) {
    int ends[2];
    if (strcmp(argv[1], "pipe") == 0) {
      if (pipe(ends) != 0)
        return 1;
      close(ends[0]);
      close(ends[1]);
    } else if (strcmp(argv[1], "socket") == 0) {
      char byte = 0;
      if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0 || write(ends[0], &byte, 1) != 1 ||
          read(ends[1], &byte, 1) != 1)
        return 1;
      close(ends[0]);
      close(ends[1]);
    } else if (strcmp(argv[1], "open") == 0) {
      close(open("/proc/self/stat", O_RDONLY));
    } else if (strcmp(argv[1], "fork") == 0) {
      pid_t child = fork();
      if (child == 0)
        execl("/bin/true", "true", (char *)NULL);
      waitpid(child, NULL, 0);
    } else {
      return 2;
    }
  }
  printf("%.0f\n", (spent() - before) / (double)times);
  return 0;
}
