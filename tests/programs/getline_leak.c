// SPDX-License-Identifier: Apache-2.0
// Forgets the buffer that getline grew, once for each file it reads.
// expect LINE: leaking lost
// leaks: LINE
// stdout: 300 files\n
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>

#include "program.h"

static int first_line(const char *path) {
  FILE *file = fopen(path, "re");
  if (file == NULL)
    return -1;
  char *line = NULL;
  size_t room = 0;
  ssize_t length = getline(&line, &room, file); // LINE HERE
  fclose(file);
  return (int)length; // line is forgotten
}

int main(void) {
  int files = 0;
  for (int i = 0; i < 300; i++) {
    files += first_line("/proc/self/stat") > 0;
    nap_us(1000);
  }
  printf("%d files\n", files);
  return 0;
}
