// SPDX-License-Identifier: Apache-2.0
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static void *kept[400];
static void *worker(void *arg) {
  int seconds_ms = *(int *)arg;
  for (int i = 0; i < 200; i++) {
    kept[i] = malloc(100);          /* reachable */
    char *lost = malloc(500);       /* leaks */
    memset(lost, 1, 500); lost = NULL;
    usleep(seconds_ms * 1000 / 200);
  }
  puts("worker done"); fflush(stdout);
  exit(5);
}
static int ms = 600;
int main(int argc, char **argv) {
  if (argc > 1) ms = atoi(argv[1]);
  pthread_t t;
  pthread_create(&t, NULL, worker, &ms);
  pthread_exit(NULL);               /* the leader becomes a zombie */
}
