// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Nanoseconds per malloc/free pair at the bottom of a real call stack.
 *
 *   pairs [--threads T] [--depth D] [--live L] [--pairs N] [--sites K] [--walk]
 *
 * Each of T threads keeps L/T blocks of 16 to 512 bytes alive. A pair frees one of them at
 * random and allocates another in its place. D frames of differing size lie between the
 * start of the thread and malloc, built without frame pointers; the last three lead to K
 * different allocation sites, used in random order. With --walk every pair descends anew from
 * the first frame, on one of K ways, so that two allocations in a row share hardly a frame.
 *
 * The time is taken inside the process, after the live set is complete and a warm-up: neither
 * the start nor the end of a tool counts. Printed: wall and processor nanoseconds per pair
 * (mean of the threads) and the resident memory in KiB at the end of the loop.
 */
#define _GNU_SOURCE
#include <getopt.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#define NOINLINE __attribute__((noipa))
#define MAX_THREADS 64u

struct worker {
  void **live;
  size_t slots;
  size_t cursor; /* slots below this are filled */
  uint64_t state; /* of the random numbers */
  uint64_t draw;  /* this pair's slot and size */
  uint64_t todo;
  uint32_t path; /* this pair's way down */
  uint32_t spoilt;
  bool filling;
  double wall_ns, cpu_ns;
  pthread_t thread;
} __attribute__((aligned(128))); /* no cache line shared by two threads */

static unsigned threads = 1, depth = 16, sites = 1;
static uint64_t live = 100000, pairs = 200000;
static bool walk;
static pthread_barrier_t barrier;

static inline void draw(struct worker *w) {
  w->state ^= w->state << 13;
  w->state ^= w->state >> 7;
  w->state ^= w->state << 17;
  w->draw = w->state;
  w->path = (uint32_t)((w->state >> 8) % sites);
}

static inline void pair(struct worker *w) {
  size_t slot = w->filling ? w->cursor++ : (size_t)(((w->draw >> 32) * w->slots) >> 32);
  size_t size = 16 + (w->draw & 31) * 16; /* 16, 32, … 512; never so large that glibc maps it */
  free(w->live[slot]);
  char *block = malloc(size);
  if (!block)
    abort();
  block[0] = 1;
  w->live[slot] = block;
}

/* A frame: a body of its own size, looked at after the call so that it is no tail call. */
typedef void frame_fn(struct worker *, uint64_t way, unsigned level);
#define FRAME(name, words, call)                                                               \
  static NOINLINE void name(struct worker *w, uint64_t way, unsigned level) {                  \
    volatile uint64_t body[words];                                                             \
    body[0] = way + level;                                                                     \
    call;                                                                                      \
    w->spoilt += body[0] != way + level;                                                       \
  }

/* The last three frames: four functions each, 64 sites. */
#define LEAF(n, words) FRAME(leaf##n, words, pair(w))
LEAF(0, 1) LEAF(1, 3) LEAF(2, 7) LEAF(3, 12)
static frame_fn *const leaf[4] = {leaf0, leaf1, leaf2, leaf3};
#define MIDDLE(n, words) FRAME(middle##n, words, leaf[w->path >> 4 & 3](w, way, level))
MIDDLE(0, 2) MIDDLE(1, 5) MIDDLE(2, 9) MIDDLE(3, 16)
static frame_fn *const middle[4] = {middle0, middle1, middle2, middle3};
#define UPPER(n, words) FRAME(upper##n, words, middle[w->path >> 2 & 3](w, way, level))
UPPER(0, 4) UPPER(1, 1) UPPER(2, 10) UPPER(3, 6)
static frame_fn *const upper[4] = {upper0, upper1, upper2, upper3};

static NOINLINE void loop(struct worker *w, uint64_t way, unsigned level) {
  for (uint64_t n = w->todo; n; n--) {
    draw(w);
    upper[w->path & 3](w, way, level);
  }
}

/* The frames above: recursion through eight functions, the next one chosen by a bit field of `way`. */
static frame_fn *const stair[8];
#define STAIR(n, words)                                                                        \
  FRAME(stair##n, words,                                                                       \
        (level  ? stair[way >> level & 7](w, way, level - 1)                                   \
         : walk ? upper[w->path & 3](w, way, level)                                            \
                : loop(w, way, level)))
STAIR(0, 1) STAIR(1, 2) STAIR(2, 3) STAIR(3, 5) STAIR(4, 8) STAIR(5, 13) STAIR(6, 21) STAIR(7, 34)
static frame_fn *const stair[8] = {stair0, stair1, stair2, stair3,
                                   stair4, stair5, stair6, stair7};

static NOINLINE void run(struct worker *w, uint64_t todo) {
  /* thread_main, run, [loop,] three frames of the site: the rest are stairs. */
  unsigned others = walk ? 5 : 6;
  unsigned level = depth > others + 1 ? depth - others - 1 : 0;
  uint64_t way = 0x9e3779b97f4a7c15u;
  w->todo = todo;
  if (!walk) {
    stair[way >> 61](w, way, level);
    return;
  }
  for (uint64_t n = todo; n; n--) {
    draw(w);
    uint64_t this_way = way * (w->path + 1);
    stair[this_way >> 61](w, this_way, level);
  }
}

static double now_ns(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static NOINLINE void *thread_main(void *argument) {
  struct worker *w = argument;
  w->filling = true;
  run(w, w->slots);
  w->filling = false;
  run(w, pairs / 4);
  pthread_barrier_wait(&barrier);
  double wall = now_ns(CLOCK_MONOTONIC), cpu = now_ns(CLOCK_THREAD_CPUTIME_ID);
  run(w, pairs);
  w->wall_ns = (now_ns(CLOCK_MONOTONIC) - wall) / (double)pairs;
  w->cpu_ns = (now_ns(CLOCK_THREAD_CPUTIME_ID) - cpu) / (double)pairs;
  pthread_barrier_wait(&barrier);
  return NULL;
}

int main(int argc, char **argv) {
  static const struct option options[] = {
      {"threads", 1, NULL, 't'}, {"depth", 1, NULL, 'd'}, {"live", 1, NULL, 'l'},
      {"pairs", 1, NULL, 'n'},   {"sites", 1, NULL, 's'}, {"walk", 0, NULL, 'w'},
      {NULL, 0, NULL, 0}};
  for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
    switch (option) {
    case 't': threads = (unsigned)atoi(optarg); break;
    case 'd': depth = (unsigned)atoi(optarg); break;
    case 'l': live = strtoull(optarg, NULL, 10); break;
    case 'n': pairs = strtoull(optarg, NULL, 10); break;
    case 's': sites = (unsigned)atoi(optarg); break;
    case 'w': walk = true; break;
    default: return 2;
    }
  }
  if (!threads || threads > MAX_THREADS || !sites || sites > 64 || live < threads || depth > 60)
    return 2;
  static struct worker workers[MAX_THREADS];
  pthread_barrier_init(&barrier, NULL, threads);
  for (unsigned i = 0; i < threads; i++) {
    workers[i].slots = live / threads;
    workers[i].live = calloc(workers[i].slots, sizeof(void *));
    workers[i].state = 0x123456789abcdefu * (i + 1);
  }
  for (unsigned i = 0; i < threads; i++)
    if (pthread_create(&workers[i].thread, NULL, thread_main, &workers[i]))
      return 2;
  double wall = 0, cpu = 0;
  for (unsigned i = 0; i < threads; i++) {
    pthread_join(workers[i].thread, NULL);
    wall += workers[i].wall_ns / threads;
    cpu += workers[i].cpu_ns / threads;
    if (workers[i].spoilt)
      return 3;
  }
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  printf("%.2f %.2f %ld\n", wall, cpu, usage.ru_maxrss);
  return 0;
}
