// SPDX-License-Identifier: Apache-2.0
/* joinable threads nobody joins: their stacks stay. argument: threads */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static void *play(void *a) { char b[20000]; memset(b, 1, sizeof b); return a; }
static void start_tone(void) { pthread_t t; pthread_create(&t, NULL, play, NULL); }   /* LEAK: never joined */
static void good_tone(void) { pthread_t t; pthread_create(&t, NULL, play, NULL); pthread_join(t, NULL); }
int main(int argc, char **argv) {
  int n = argc > 1 ? atoi(argv[1]) : 60, good = argc > 2;
  for (int i = 0; i < n; i++) { if (good) good_tone(); else start_tone(); usleep(10000); }
  puts("tone done");
  return 0;
}
