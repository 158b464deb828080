// SPDX-License-Identifier: Apache-2.0
/* Blocks from before the recording began (SIGUSR1), freed while THREADS threads that freed some of
 * their own wait. Prints whether the frees took less than five seconds; alone it is a millisecond. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { BLOCKS = 5000, MOST_THREADS = 5000 };
static void *blocks[BLOCKS];
static pthread_barrier_t barrier;

static void *thread(void *unused) {
  for (int i = 0; i < 300; i++)
    free(malloc(100));
  pthread_barrier_wait(&barrier);
  pthread_barrier_wait(&barrier);
  return unused;
}

int main(int argc, char **argv) {
  int count = atoi(argv[1]);
  pthread_t threads[MOST_THREADS];
  pthread_attr_t small;
  struct timespec start, end;
  for (int i = 0; i < BLOCKS; i++)
    blocks[i] = malloc(2000 + i);
  if (argc > 2)
    raise(SIGUSR1);
  pthread_barrier_init(&barrier, NULL, count + 1);
  pthread_attr_init(&small);
  pthread_attr_setstacksize(&small, 65536);
  for (int i = 0; i < count; i++)
    pthread_create(&threads[i], &small, thread, NULL);
  pthread_barrier_wait(&barrier);
  clock_gettime(CLOCK_MONOTONIC, &start);
  for (int i = 0; i < BLOCKS; i++)
    free(blocks[i]);
  clock_gettime(CLOCK_MONOTONIC, &end);
  pthread_barrier_wait(&barrier);
  for (int i = 0; i < count; i++)
    pthread_join(threads[i], NULL);
  puts(end.tv_sec - start.tv_sec < 5 ? "fast" : "slow");
  return 0;
}
