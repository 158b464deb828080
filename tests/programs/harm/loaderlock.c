// SPDX-License-Identifier: Apache-2.0
/* A thread holds a lock of the loader while another one forks; the child, which finds it held for
 * ever, calls nothing but what may be called then, each for the first time, and executes true. It
 * ends with status 0, and this program with status 7. */
#define _GNU_SOURCE
#include <link.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static sem_t inside, over;

static int stay(struct dl_phdr_info *info, size_t bytes, void *context) {
  (void)info, (void)bytes, (void)context;
  sem_post(&inside);
  sem_wait(&over);
  return 1;
}

static void *hold(void *unused) {
  dl_iterate_phdr(stay, NULL);
  return unused;
}

int main(void) {
  pthread_t thread;
  int status = 0;
  sem_init(&inside, 0, 0);
  sem_init(&over, 0, 0);
  pthread_create(&thread, NULL, hold, NULL);
  sem_wait(&inside);
  pid_t child = fork();
  if (!child) {
    stack_t stack = {.ss_flags = SS_DISABLE};
    alarm(20);
    struct sigaction action = {.sa_handler = SIG_IGN};
    sigaction(SIGUSR1, &action, NULL);
    signal(SIGUSR2, SIG_IGN);
    kill(getpid(), SIGUSR1);
    sigaltstack(&stack, NULL);
    char *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(page, 4096, PROT_READ | PROT_WRITE);
    munmap(page, 4096);
    execl("/bin/true", "true", (char *)NULL);
    _exit(3);
  }
  waitpid(child, &status, 0);
  sem_post(&over);
  pthread_join(thread, NULL);
  printf("%d\n", status);
  return 7;
}
