// SPDX-License-Identifier: Apache-2.0
// Programs whose course of memory is known: `programs SHAPE` runs until it is killed.
// Rates suit a watch of about an hour. Every program also churns a little, as real ones do.
#define _GNU_SOURCE
#include <fcntl.h>
#include <malloc.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { KB = 1024, MB = 1024 * KB };
static char *base[4096]; // 40 MB in blocks of 10 KB: the level of every program
static unsigned seed = 1;

static unsigned any(unsigned below) {
  seed = seed * 1664525u + 1013904223u;
  return (seed >> 8) % below;
}
static void *take(size_t size) {
  char *p = malloc(size);
  if (p) memset(p, (int)any(255) + 1, size);
  return p;
}
static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}
static void rest(double seconds) {
  struct timespec t = {(time_t)seconds, (long)((seconds - (time_t)seconds) * 1e9)};
  while (nanosleep(&t, &t) != 0) {}
}
static void churn(void) {
  for (int n = 0; n < 20; n++) {
    unsigned at = any(4096);
    free(base[at]);
    base[at] = take(9 * KB + any(2 * KB));
  }
}
static void *sleeper(void *arg) {
  for (;;) pause();
  return arg;
}

int main(int argc, char **argv) {
  const char *shape = argc > 1 ? argv[1] : "";
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  prctl(PR_SET_NAME, shape);
  seed = (unsigned)strlen(shape) * 77u + (unsigned)shape[0] + (unsigned)getpid(); // no two runs alike
  for (int n = 0; n < 4096; n++) base[n] = take(10 * KB);
  void **kept = calloc(1 << 20, sizeof *kept);
  size_t held = 0;
  double began = now(), due = 0;
  char path[256];
  snprintf(path, sizeof path, "/dev/shm/leakscope-bench-%d", getpid());
  for (long tick = 0;; tick++) { // one tick a second
    double t = now() - began;
    churn();
    if (!strcmp(shape, "leak-60")) { // MB an hour
      for (int n = 0; n < 17; n++) kept[held++] = take(KB);
    } else if (!strcmp(shape, "leak-12")) { // and a heavy noise of requests
      if (tick % 3 == 0)
        for (int n = 0; n < 10; n++) kept[held++] = take(KB);
      static char *request;
      if (request) munmap(request, 4 * MB);
      size_t size = any(4 * MB - 4096) + 4096;
      request = mmap(0, 4 * MB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      memset(request, 1, size);
    } else if (!strcmp(shape, "leak-bursts")) { // 2 MB every 3 to 6 minutes
      if (t >= due) {
        kept[held++] = take(2 * MB);
        due = t + 180 + any(180);
      }
    } else if (!strcmp(shape, "leak-late")) { // warm-up of 10 minutes, then 30 MB an hour
      size_t want = (size_t)(4000 * (1 - exp(-t / 200)) + t * 30 * 1024 / 3600 / 4);
      while (held < want) kept[held++] = take(4 * KB);
    } else if (!strcmp(shape, "leak-gc")) { // 24 MB an hour below a sawtooth of 20 MB
      if (tick % 3 == 0) kept[held++] = take(20 * KB);
      static char *heap;
      if (!heap || tick % 120 == 0) {
        if (heap) munmap(heap, 20 * MB);
        heap = mmap(0, 20 * MB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      }
      memset(heap + tick % 120 * (20 * MB / 120), 1, 20 * MB / 120);
    } else if (!strcmp(shape, "leak-fds")) { // 90 an hour
      if (tick % 40 == 0) held += dup(0) >= 0;
    } else if (!strcmp(shape, "leak-sockets")) {
      if (tick % 60 == 0) held += socket(AF_UNIX, SOCK_STREAM, 0) >= 0;
    } else if (!strcmp(shape, "leak-threads")) { // 60 an hour
      pthread_t id;
      if (tick % 60 == 0) held += pthread_create(&id, 0, sleeper, 0) == 0;
    } else if (!strcmp(shape, "leak-maps")) { // 180 mappings an hour, hardly any memory
      if (tick % 20 == 0) {
        char *p = mmap(0, 8 * KB, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        mprotect(p, 4 * KB, PROT_NONE);
      }
    } else if (!strcmp(shape, "leak-zombies")) {
      if (tick % 60 == 0 && fork() == 0) _exit(0);
    } else if (!strcmp(shape, "leak-children")) {
      if (tick % 60 == 0 && fork() == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        prctl(PR_SET_NAME, "child");
        sleeper(0);
      }
    } else if (!strcmp(shape, "leak-sysv")) { // segments nobody removes, 30 MB an hour
      if (tick % 60 == 0) {
        int id = shmget(IPC_PRIVATE, 512 * KB, IPC_CREAT | 0600);
        char *p = id < 0 ? (char *)-1 : shmat(id, 0, 0);
        if (p != (char *)-1) memset(p, 1, 512 * KB), shmdt(p);
      }
    } else if (!strcmp(shape, "leak-tmpfs")) { // files nobody deletes, 20 MB an hour
      if (tick % 60 == 0) {
        char name[300];
        snprintf(name, sizeof name, "%s.%ld", path, tick);
        int fd = open(name, O_CREAT | O_WRONLY | O_EXCL, 0600);
        static char page[340 * KB];
        if (fd >= 0 && write(fd, page, sizeof page) > 0) close(fd);
      }
    } else if (!strcmp(shape, "leak-slab")) { // kernel objects: POSIX timers, 20 a second
      for (int n = 0; n < 20; n++) {
        struct sigevent event = {.sigev_notify = SIGEV_NONE};
        timer_t timer;
        if (timer_create(CLOCK_MONOTONIC, &event, &timer) == 0) held++;
      }
    } else if (!strcmp(shape, "warm-up")) { // 30 MB within about 10 minutes
      while (held < (size_t)(7500 * (1 - exp(-t / 180)))) kept[held++] = take(4 * KB);
    } else if (!strcmp(shape, "cache-bounded")) { // fills for 20 minutes, then replaces
      for (int n = 0; n < 6; n++) {
        size_t at = held++ % 7200;
        free(kept[at]);
        kept[at] = take(4 * KB);
      }
    } else if (!strcmp(shape, "sawtooth")) { // a garbage collector's
      static char *heap;
      if (!heap || tick % 90 == 0) {
        if (heap) munmap(heap, 30 * MB);
        heap = mmap(0, 30 * MB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      }
      memset(heap + tick % 90 * (30 * MB / 90), 1, 30 * MB / 90);
    } else if (!strcmp(shape, "step")) { // a reload after 25 minutes
      if (t > 1500 && !held) kept[held++] = take(25 * MB);
    } else if (!strcmp(shape, "fragmentation")) { // constant live bytes of many sizes
      for (int n = 0; n < 60; n++) {
        size_t at = any(2000);
        free(kept[at]);
        kept[at] = take(64 + any(any(20) ? 2 * KB : 60 * KB));
      }
    } else if (!strcmp(shape, "fork-pool")) { // workers that grow and are replaced
      while (waitpid(-1, 0, WNOHANG) > 0) held--;
      while (held < 3) {
        held++;
        if (fork() == 0) {
          prctl(PR_SET_PDEATHSIG, SIGKILL);
          prctl(PR_SET_NAME, "pool-worker");
          for (int n = 0, all = 60 + (int)(getpid() % 120); n < all; n++) {
            take(64 * KB);
            rest(1);
          }
          _exit(0);
        }
      }
    } else if (!strcmp(shape, "log-tmpfs")) { // a log that is rotated every 5 minutes
      int fd = open(path, O_CREAT | O_WRONLY | (tick % 300 ? O_APPEND : O_TRUNC), 0600);
      static char line[64 * KB];
      if (fd >= 0 && write(fd, line, sizeof line) > 0) close(fd);
    } else if (!strcmp(shape, "dentries")) { // names that do not exist: a cache of the kernel
      for (int n = 0; n < 60; n++) {
        char name[320];
        struct stat facts;
        snprintf(name, sizeof name, "/tmp/leakscope-bench-no-such-%d-%ld-%d", getpid(), tick, n);
        stat(name, &facts);
      }
    } else if (strcmp(shape, "flat")) {
      fprintf(stderr, "programs: unknown shape '%s'\n", shape);
      return 2;
    }
    double next = began + tick + 1;
    if (next > now()) rest(next - now());
  }
}
