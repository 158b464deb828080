// SPDX-License-Identifier: Apache-2.0
// Wrong frees of C, one for each argument; each place has a function or a mark of its own.
#define _GNU_SOURCE
#include <alloca.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOINLINE __attribute__((noipa))

static char *volatile block, *volatile other;
static char data[128];

NOINLINE static char *make(size_t size) {
  char *made = malloc(size); // MAKE HERE
  memset(made, 1, size);
  __asm__ volatile("" : : : "memory");
  return made;
}

NOINLINE static void first(void *pointer) {
  free(pointer); // FIRST HERE
  __asm__ volatile("" : : : "memory");
}

NOINLINE static void again(void *pointer) {
  free(pointer); // AGAIN HERE
  __asm__ volatile("" : : : "memory");
}

static void *first_in_thread(void *pointer) {
  first(pointer);
  return NULL;
}

/* Through more free blocks than glibc keeps checked: it goes on. */
NOINLINE static void accepted(void) {
  char *volatile filling[7];
  for (int i = 0; i < 7; i++)
    filling[i] = make(24);
  block = make(24);
  other = make(24);
  for (int i = 0; i < 7; i++)
    free(filling[i]);
  first(block);
  free(other);
  again(block);
}

NOINLINE static int wrong(const char *what) {
  if (!strcmp(what, "small")) {
    first(block = make(100));
    again(block);
  } else if (!strcmp(what, "large")) {
    block = make(5000);
    other = make(10);
    first(block);
    again(block);
  } else if (!strcmp(what, "mapped")) {
    first(block = make(1 << 20));
    again(block);
  } else if (!strcmp(what, "accepted")) {
    accepted();
    _exit(0); /* before its lists are used */
  } else if (!strcmp(what, "long-ago")) {
    block = make(100);
    other = make(5000);
    first(block);
    for (int i = 0; i < 20000; i++)
      free(make(2000));
    again(block);
  } else if (!strcmp(what, "thread")) {
    pthread_t thread;
    block = make(100);
    pthread_create(&thread, NULL, first_in_thread, block);
    pthread_join(thread, NULL);
    again(block);
  } else if (!strcmp(what, "realloc")) {
    first(block = make(100));
    block = realloc(block, 50); // REALLOC HERE
  } else if (!strcmp(what, "interior")) {
    block = make(100);
    again(block + 16);
  } else if (!strcmp(what, "far-interior")) {
    block = make(3 << 20);
    again(block + (2 << 20) + 16);
  } else if (!strcmp(what, "stack")) {
    char room[128];
    memset(room, 0, sizeof room);
    other = room;
    again(other + 16);
  } else if (!strcmp(what, "deep-stack")) { /* deeper than any call before it */
    free(make(100));
    other = memset(alloca(20000), 0, 20000);
    again(other + 16);
  } else if (!strcmp(what, "data")) {
    again(data + 16);
  } else if (!strcmp(what, "wild")) {
    again((void *)0x1234567890);
  } else if (!strcmp(what, "child")) {
    block = make(100);
    if (!fork()) {
      free(block); /* inherited: as good as any */
      first(block = make(200));
      again(block);
    }
    int status;
    wait(&status);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  } else {
    return 64;
  }
  return 0;
}

int main(int count, char **arguments) {
  if (count != 2)
    return 64;
  int status = wrong(arguments[1]);
  puts("end");
  return status;
}
