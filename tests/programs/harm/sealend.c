// SPDX-License-Identifier: Apache-2.0
/* Ends with another thread at work under a filter that kills for what only its tracer would do.
 * sealend exit|call|segv|abort|term|self */
#define _GNU_SOURCE
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static void *work(void *unused) {
  for (;;)
    free(malloc(100));
  return unused;
}

int main(int argc, char **argv) {
  static const int punished[] = {SYS_timer_create, SYS_timer_settime, SYS_seccomp, SYS_rt_tgsigqueueinfo,
                                 SYS_sigaltstack,  SYS_getsockopt,    SYS_prctl,   SYS_unshare,
                                 SYS_close_range,  SYS_mincore,       SYS_flock,   SYS_getdents64,
                                 SYS_newfstatat,   SYS_readlinkat,    SYS_process_vm_readv};
  enum { COUNT = sizeof punished / sizeof *punished };
  struct sock_filter f[COUNT + 3];
  int k = 0;
  f[k++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
  for (int i = 0; i < COUNT; i++)
    f[k++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, punished[i], COUNT - i, 0);
  f[k++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  f[k++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
  struct sock_fprog p = {k, f};
  pthread_t thread;
  pthread_create(&thread, NULL, work, NULL);
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &p))
    return 9;
  write(1, "sealed\n", 7);
  if (!strcmp(argv[1], "exit"))
    _exit(4);
  if (!strcmp(argv[1], "call"))
    syscall(SYS_exit_group, 5);
  if (!strcmp(argv[1], "segv"))
    *(volatile int *)8 = 1;
  if (!strcmp(argv[1], "abort"))
    abort();
  if (!strcmp(argv[1], "term"))
    raise(SIGTERM);
  kill(getpid(), SIGINT);
  for (;;)
    pause();
}
