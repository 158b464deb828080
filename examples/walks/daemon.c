/* SPDX-License-Identifier: Apache-2.0
   A daemon that nobody prepared: each request leaves 1,000 bytes that nothing points to.
   About 1 MB a second, until SIGTERM or after $REQUESTS requests. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static volatile sig_atomic_t told_to_end;

static void end(int number) {
  (void)number;
  told_to_end = 1;
}

static void handle_request(int number) {
  char *volatile answer = malloc(1000);
  memset(answer, 'a' + number % 26, 1000);
}

int main(void) {
  signal(SIGTERM, end);
  const char *text = getenv("REQUESTS");
  const long most = text ? atol(text) : -1;
  puts("ready");
  fflush(stdout);
  for (int number = 0; !told_to_end && number != most; number++) {
    handle_request(number);
    if (number % 50 == 0) nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
  }
  return 0;
}
