/* SPDX-License-Identifier: Apache-2.0
   A server with three workers, each of which loses what it answered. */
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void answer(int number) {
  char *volatile text = malloc(200);
  memset(text, number, 200);
}

int main(void) {
  for (int worker = 0; worker < 3; worker++) {
    if (fork() == 0) {
      for (int number = 0; number < 500; number++) answer(number);
      usleep(250000);
      exit(0);
    }
  }
  while (wait(NULL) > 0) continue;
  return 0;
}
