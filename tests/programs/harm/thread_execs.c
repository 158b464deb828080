/* SPDX-License-Identifier: Apache-2.0 */
/* Many threads, one of which calls exec, again and again: it waits until all others are gone.
 * Says how long the longest one took. Arguments: how often it has done so, and how long to go on. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

static double number(const char *name) { return getenv(name) ? atof(getenv(name)) : 0; }

static void set(const char *name, double value) {
  char text[64];
  snprintf(text, sizeof text, "%f", value);
  setenv(name, text, 1);
}

static void *idle(void *argument) {
  for (;;)
    pause();
}

static void *again(void *argument) {
  usleep(20000);
  set("STARTED", now());
  execl("/proc/self/exe", "thread_execs", (char *)NULL);
  abort();
}

int main(int argc, char **argv) {
  double started = number("STARTED"), longest = number("LONGEST"), end = number("END");
  if (argc > 1) {
    puts("ready");
    fflush(stdout);
    set("END", end = now() + atof(argv[1]));
  } else if (now() - started > longest)
    set("LONGEST", longest = now() - started);
  if (now() > end) {
    printf("longest %.2f\n", longest);
    return 7;
  }
  pthread_t thread;
  for (int i = 0; i < 20; i++)
    pthread_create(&thread, NULL, idle, NULL);
  pthread_create(&thread, NULL, again, NULL);
  idle(NULL);
}
