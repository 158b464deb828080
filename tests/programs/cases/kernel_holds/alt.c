// SPDX-License-Identifier: Apache-2.0
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <pthread.h>
#include <unistd.h>
enum { SIZE = 65536 };
static void on(int n) { (void)n; write(1, "on alt stack\n", 13); }
static void set(void) {
  /* the address of the stack stays with the kernel alone */
  stack_t s = {.ss_sp = malloc(SIZE), .ss_size = SIZE};
  sigaltstack(&s, NULL);
  memset(&s, 0, sizeof s);
}
static void *thread(void *a) { set(); pause(); return a; }
int main(void) {
  struct sigaction a = {.sa_handler = on, .sa_flags = SA_ONSTACK};
  sigaction(SIGUSR1, &a, NULL);
  set();
  pthread_t t; pthread_create(&t, NULL, thread, NULL);
  raise(SIGUSR1);
  usleep(300000);
  raise(SIGUSR1);
  char *p = malloc(77); *p = 1; p = NULL;  /* the one real leak */
  puts("alt done");
  return 0;
}
