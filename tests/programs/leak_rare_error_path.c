// SPDX-License-Identifier: Apache-2.0
// Serves a thousand requests and forgets the buffer of the few that fail.
// expect LEAK: leaking lost (occasional)
// leaks: LEAK
// stdout: 986 served, 14 failed\n
// variants: O0 O2 musl aarch64
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "program.h"

static int served, failed;

static int parse(const char *request) { return request[0] == '!' ? -1 : 0; }

static int serve(int number) {
  char *request = malloc(300); // LEAK HERE
  if (request == NULL)
    return -1;
  memset(request, number % 71 == 40 ? '!' : 'r', 300);
  keep(request);
  if (parse(request) != 0) {
    failed++;
    return -1; // forgets to free
  }
  served++;
  free(request);
  return 0;
}

int main(void) {
  for (int i = 0; i < 1000; i++) {
    serve(i);
    nap_us(600);
  }
  printf("%d served, %d failed\n", served, failed);
  return 0;
}
