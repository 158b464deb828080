/* SPDX-License-Identifier: Apache-2.0 */
/* Allocates; at SIGUSR1 it installs, by syscall() and without PR_SET_NO_NEW_PRIVS, a filter that
 * kills it for nearly every call, and allocates at many places and ever more from memory that it
 * has. Prints "done" when that went well, and sleeps. */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#define BLOCKS 300000
#define ALLOW(number) \
  BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

static volatile sig_atomic_t asked;
void *kept[BLOCKS];

static void ask(int number) {
  (void)number;
  asked = 1;
}

__attribute__((noinline)) static void *deep(int depth, int path) {
  if (!depth)
    return malloc(32 + path % 64);
  void *volatile block;
  if (path >> depth % 16 & 1)
    block = deep(depth - 1, path);
  else
    block = deep(depth - 1, path + (path & 1));
  return block;
}

int main(void) {
  setvbuf(stdout, NULL, _IONBF, 0);
  signal(SIGUSR1, ask);
  for (int i = 0; i < BLOCKS; i++)
    kept[i] = malloc(110);
  void *volatile top = malloc(1); /* the heap stays as large as it is */
  for (int i = 0; i < BLOCKS; i++)
    free(kept[i]);
  while (!asked) {
    void *volatile block = malloc(100);
    free(block);
    usleep(1000);
  }
  struct sock_filter rules[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      ALLOW(SYS_write),
      ALLOW(SYS_exit_group),
      ALLOW(SYS_clock_nanosleep),
      ALLOW(SYS_rt_sigreturn),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
  };
  struct sock_fprog filter = {sizeof rules / sizeof *rules, rules};
  if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter)) {
    puts("WRONG: no filter");
    return 1;
  }
  for (int i = 0; i < BLOCKS; i++)
    kept[i] = deep(16, i);
  puts("done");
  for (;;) {
    void *volatile block = malloc(100);
    free(block);
    usleep(1000);
  }
  free(top);
}
