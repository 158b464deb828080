// SPDX-License-Identifier: Apache-2.0
// Pointers in every place that a program may keep them: nothing is lost.
// leaks: none
#define _GNU_SOURCE
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "program.h"

static void *volatile in_bss;
static void *volatile in_data = (void *)&in_bss;
static __thread void *volatile in_tls;
static pthread_key_t key;
static sem_t ready;

static void *wait_for_ever(void *nothing) {
  void *volatile on_stack = malloc(101);
  in_tls = malloc(102);
  pthread_setspecific(key, malloc(103));
  sem_post(&ready);
  pause();
  keep(on_stack);
  return nothing;
}

int main(void) {
  pthread_key_create(&key, NULL);
  sem_init(&ready, 0, 0);
  pthread_t thread;
  pthread_create(&thread, NULL, wait_for_ever, NULL);
  sem_wait(&ready);
  in_bss = malloc(104);
  in_data = malloc(105);
  in_tls = malloc(106);
  void **mapped = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  mapped[700] = malloc(107);
  void **shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  shared[3] = malloc(108);
  void **block = malloc(300000); // large: a mapping of the allocator's
  block[9999] = malloc(109);
  static void *volatile large;
  large = block;
  _exit(0);
}
