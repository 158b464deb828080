// SPDX-License-Identifier: Apache-2.0
/* Installs a filter that allows what a C library needs to start a program, and becomes it.
 * jailer seen|bare PROGRAM ARGUMENT...          (bare: by an instruction of its own)
 * jailer errno|kill PROGRAM ARGUMENT...         allows all but process_vm_readv and membarrier */
#define _GNU_SOURCE
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static long bare(long n, long a, long b, long c) {
  long result;
#ifdef __x86_64__
  __asm__ volatile("syscall" : "=a"(result) : "a"(n), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
#else
  register long x8 __asm__("x8") = n, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c;
  __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
  result = x0;
#endif
  return result;
}

int main(int argc, char **argv) {
  static int few[] = {
#ifdef __x86_64__
      SYS_arch_prctl, SYS_access,
#endif
      SYS_execve, SYS_read, SYS_write, SYS_openat, SYS_close, SYS_fstat, SYS_newfstatat, SYS_mmap,
      SYS_munmap, SYS_mprotect, SYS_pread64, SYS_brk, SYS_set_tid_address, SYS_set_robust_list,
      SYS_rseq, SYS_prlimit64, SYS_getrandom, SYS_exit_group, SYS_exit, SYS_futex, SYS_mremap,
      SYS_faccessat};
  enum { COUNT = sizeof few / sizeof *few };
  struct sock_filter f[COUNT + 6];
  int k = 0;
  f[k++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
  for (int i = 0; i < COUNT; i++)
    f[k++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, few[i], COUNT - i, 0);
  f[k++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
  f[k++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  if (!strcmp(argv[1], "errno") || !strcmp(argv[1], "kill")) {
    k = 1;
    f[k++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_readv, 2, 0);
    f[k++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_membarrier, 1, 0);
    f[k++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    f[k++] = (struct sock_filter)BPF_STMT(
        BPF_RET | BPF_K, argv[1][0] == 'e' ? SECCOMP_RET_ERRNO | 1 : SECCOMP_RET_KILL_PROCESS);
  }
  struct sock_fprog p = {k, f};
  int is_bare = strcmp(argv[1], "seen");
  if (is_bare)
    bare(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0);
  else
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  if (is_bare ? bare(SYS_prctl, PR_SET_SECCOMP, 2, (long)&p) : prctl(PR_SET_SECCOMP, 2, &p)) {
    perror("seccomp");
    return 9;
  }
  execv(argv[2], argv + 2);
  return 8;
}
