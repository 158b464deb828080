// SPDX-License-Identifier: Apache-2.0
// One thread asks again and again which descriptor number is the lowest free one, while others do
// all that makes an observer look around: threads that come and go, code in no file, dlclose. None
// of them opens anything. Then children are looked at. Prints what was found: nothing but zeroes.
// usage: fds SECONDS [full]   full: no descriptor number is left for anybody
//        fds list             prints the descriptors it was born with
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;
static volatile int stop;
static int lowest;
static void *volatile sink;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

static int lowest_free(void) {
  int fd = dup(0);
  close(fd);
  return fd;
}

static void *watch(void *asked) {
  long wrong = 0;
  while (!stop) {
    int fd = dup(0);
    wrong += fd != lowest;
    close(fd);
    ++*(long *)asked;
  }
  return (void *)wrong;
}

static void *small(void *unused) {
  free(sink = malloc(50));
  return unused;
}

static void *threads(void *unused) {
  while (!stop) {
    pthread_t t[3];
    for (int i = 0; i < 3; i++)
      pthread_create(&t[i], NULL, small, NULL);
    for (int i = 0; i < 3; i++)
      pthread_join(t[i], NULL);
  }
  return unused;
}

static void *unknown_code(void *unused) {
  while (!stop) {
#ifdef __x86_64__
    static const unsigned char code[] = {0x48, 0x83, 0xec, 8, 0x48, 0xb8, 0,    0,    0, 0, 0,
                                         0,    0,    0,    0xff, 0xd0, 0x48, 0x83, 0xc4, 8, 0xc3};
    unsigned char *page = mmap(NULL, 4096, 7, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    void *(*function)(size_t) = malloc;
    memcpy(page, code, sizeof code);
    memcpy(page + 6, &function, 8);
    free(((void *(*)(size_t))page)(40));
    munmap(page, 4096);
#endif
    void *self = dlopen(NULL, RTLD_NOW);
    dlclose(self);
    usleep(500);
  }
  return unused;
}

static int others(char *out) { /* descriptors beyond the standard ones */
  char name[64], target[300];
  int n = 0;
  for (int fd = 3; fd < 200; fd++) {
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t k = readlink(name, target, sizeof target - 1);
    if (k < 0)
      continue;
    target[k] = 0;
    n++;
    if (strlen(out) < 2000)
      sprintf(out + strlen(out), "%d=%s ", fd, target);
  }
  return n;
}

static int ended(pid_t child) {
  int status;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 99;
}

int main(int count, char **argument) {
  if (!strcmp(argument[1], "list")) {
    char text[3000] = "";
    int n = others(text);
    if (n)
      fprintf(stderr, "born with %s\n", text);
    return n;
  }
  for (int fd = 3; fd < 200; fd++)
    close(fd);
  if (count > 2) {
    struct rlimit limit = {3, 3};
    setrlimit(RLIMIT_NOFILE, &limit);
    pid_t child = fork();
    if (!child) {
      for (int i = 0; i < 10; i++)
        sink = malloc(777);
      exit(dup(0) >= 0);
    }
    printf("child %d\n", ended(child));
    return 0;
  }
  lowest = lowest_free();
  long asked = 0, wrong = 0, inherited = 0, shifted = 0;
  double end = now() + atof(argument[1]);
  do {
    pthread_t busy[3];
    void *more;
    stop = 0;
    pthread_create(&busy[0], NULL, watch, &asked);
    pthread_create(&busy[1], NULL, threads, NULL);
    pthread_create(&busy[2], NULL, unknown_code, NULL);
    usleep(200000);
    stop = 1;
    pthread_join(busy[0], &more);
    wrong += (long)more;
    for (int i = 1; i < 3; i++)
      pthread_join(busy[i], NULL);

    stop = 0; /* now with nobody but the children who ask */
    pthread_create(&busy[1], NULL, threads, NULL);
    pthread_create(&busy[2], NULL, unknown_code, NULL);
    for (int i = 0; i < 20; i++) {
      pid_t child = fork();
      if (!child) {
        char text[3000] = "";
        int before = lowest_free();
        sink = malloc(100); /* a recording of its own begins */
        _exit((others(text) > 0) | (before != lowest || lowest_free() != lowest) << 1);
      }
      int bits = ended(child);
      inherited += bits & 1;
      shifted += bits >> 1;
      char *const list[] = {argument[0], "list", NULL};
      if (i % 5 == 0 && !posix_spawn(&child, argument[0], NULL, NULL, list, environ))
        inherited += ended(child) != 0;
    }
    stop = 1;
    for (int i = 1; i < 3; i++)
      pthread_join(busy[i], NULL);
  } while (now() < end);
  printf("asked %d, another number %ld, inherited %ld, shifted %ld, lowest at the end %d\n",
         asked > 1000, wrong, inherited, shifted, lowest_free() - lowest);
  return wrong || inherited || shifted;
}
