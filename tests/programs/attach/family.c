/* SPDX-License-Identifier: Apache-2.0 */
/* family HOW: a program with descendants, of which some lose blocks in lost(): that line is to be named.
 *   workers  three workers, forked at once, that lose; one that was killed is forked again
 *   late     the same, forked after two seconds
 *   chain    a child that forks a child that loses, after two seconds
 *   orphans  a child that forks one that loses, and ends at once, after two seconds
 *   exec     a child that runs this program again as "worker", after two seconds
 *   vfork    the same by vfork, which holds the program for a second before it runs the other one
 *   burst    a hundred children that allocate, free and end with a status of their own, after two seconds
 *   filtered a child under a system call filter that allows all, at once
 * Prints WRONG and ends when a child does not end as it should. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define MOST 2000000
void *kept[MOST], *volatile last; /* not static: the compiler would leave them out */
static int count;

__attribute__((noinline)) static void *lost(int i) { return malloc(24 + i % 100); }

static void lose(void) {
  for (int i = 0;; i++) {
    char *text = last = malloc(200 + i % 3000);
    memset(text, i, 200);
    if (text[199] != (char)i) {
      puts("WRONG");
      _exit(9);
    }
    free(text);
    if (count < MOST)
      kept[count++] = lost(i);
    usleep(1000);
  }
}

static pid_t worker(void) {
  pid_t child = fork();
  if (!child)
    lose();
  return child;
}

static void burst(void) {
  pid_t children[100];
  for (int i = 0; i < 100; i++) {
    if (!(children[i] = fork())) {
      for (int k = 0; k < 300; k++)
        last = memset(malloc(100 + k), 1, 100 + k), free(last);
      _exit(i);
    }
    int status;
    if (i % 2 && (waitpid(children[i], &status, 0) != children[i] || status != i << 8)) {
      printf("WRONG %x\n", status);
      exit(9);
    }
  }
  for (int i = 0, status; i < 100; i += 2)
    if (waitpid(children[i], &status, 0) != children[i] || status != i << 8) {
      printf("WRONG %x\n", status);
      exit(9);
    }
  puts("RIGHT");
}

int main(int argc, char **argv) {
  const char *how = argc > 1 ? argv[1] : "";
  setvbuf(stdout, NULL, _IONBF, 0);
  if (!strcmp(how, "worker"))
    lose();
  if (strcmp(how, "workers") && strcmp(how, "filtered"))
    for (int i = 0; i < 200; i++) {
      usleep(argc > 2 ? 10000 * atoi(argv[2]) : 10000);
      last = malloc(50), free(last);
    }
  if (!strcmp(how, "workers") || !strcmp(how, "late"))
    for (int i = 0; i < 3; i++)
      worker();
  else if (!strcmp(how, "filtered") && !fork()) {
    struct sock_filter allow = BPF_STMT(BPF_RET, SECCOMP_RET_ALLOW);
    struct sock_fprog filter = {1, &allow};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, 2, &filter))
      _exit(9);
    lose();
  } else if (!strcmp(how, "burst"))
    burst();
  else if (!strcmp(how, "chain") || !strcmp(how, "orphans")) {
    if (!fork()) {
      worker();
      if (how[0] == 'o')
        _exit(0);
      for (;;)
        pause();
    }
  } else if (!strcmp(how, "exec") && !fork()) {
    execl("/proc/self/exe", "again", "worker", (char *)NULL);
    _exit(9);
  } else if (!strcmp(how, "vfork") && !vfork()) {
    sleep(1);
    execl("/proc/self/exe", "again", "worker", (char *)NULL);
    _exit(9);
  }
  for (;;) {
    int status;
    pid_t ended = waitpid(-1, &status, WNOHANG);
    if (ended > 0 && WIFSIGNALED(status) && WTERMSIG(status) == 15)
      worker();
    else if (ended > 0 && status) {
      printf("WRONG %x\n", status);
      return 9;
    }
    last = malloc(60), free(last);
    usleep(2000);
  }
}
