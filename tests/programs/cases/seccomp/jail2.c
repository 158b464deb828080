// SPDX-License-Identifier: Apache-2.0
/* A sandboxed worker: after start-up it allows only what it needs, all else kills (KILL_PROCESS) or fails (ERRNO). */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#define ALLOW(nr) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##nr, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
int main(int argc, char **argv) {
  const char *mode = argc > 1 ? argv[1] : "kill";
  int rounds = argc > 2 ? atoi(argv[2]) : 3000;
  char *buffer = malloc(4096); setvbuf(stdout, buffer, _IOFBF, 4096);
  if (!strcmp(mode, "strict")) { prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT); }
  else {
    struct sock_filter f[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      ALLOW(read), ALLOW(write), ALLOW(brk), ALLOW(mmap), ALLOW(munmap), ALLOW(mremap), ALLOW(exit), ALLOW(exit_group), ALLOW(rt_sigreturn), ALLOW(clock_nanosleep), ALLOW(futex),
#ifdef TYPICAL
      ALLOW(mprotect), ALLOW(rt_sigprocmask), ALLOW(rt_sigaction), ALLOW(clock_gettime), ALLOW(fstat), ALLOW(newfstatat), ALLOW(getpid), ALLOW(gettid), ALLOW(madvise), ALLOW(close), ALLOW(poll), ALLOW(sched_yield), ALLOW(nanosleep),
#endif
      BPF_STMT(BPF_RET | BPF_K, !strcmp(mode, "errno") ? SECCOMP_RET_ERRNO | EPERM : SECCOMP_RET_KILL_PROCESS),
    };
    struct sock_fprog p = {sizeof f / sizeof *f, f};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &p)) { perror("seccomp"); return 9; }
  }
  for (int i = 0; i < rounds; i++) {
    char *lost = malloc(40 + i % 50); memset(lost, 1, 40); lost = NULL;   /* leak */
    if (strcmp(mode, "strict") && i % 30 == 0) usleep(3000);
  }
  const char done[] = "jail done\n";
  write(1, done, sizeof done - 1);
  if (!strcmp(mode, "strict")) syscall(SYS_exit, 4);
  return 4;
}
