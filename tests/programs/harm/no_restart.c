/* SPDX-License-Identifier: Apache-2.0 */
/* Sleeps under a system call filter that kills it for restart_syscall, and allows all else. Prints
 * WRONG when a call ends otherwise than alone. */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>

static double now(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return at.tv_sec + at.tv_nsec / 1e9;
}

int main(void) {
  setvbuf(stdout, NULL, _IONBF, 0);
  struct sock_filter rules[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_restart_syscall, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog filter = {4, rules};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, 2, &filter)) {
    puts("WRONG: no filter");
    return 1;
  }
  for (int i = 0;; i++) {
    struct timespec left = {0, 300000000};
    double before = now();
    int result = i % 2 ? nanosleep(&left, &left) : poll(NULL, 0, 300);
    if (result || now() - before < 0.29)
      printf("WRONG: %d after %.3f s\n", result, now() - before);
  }
}
