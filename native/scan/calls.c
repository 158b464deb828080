// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Every kind of system call that the agent makes, once, to no effect: a system call filter that
 * punishes one of them kills whoever calls this, and not the traced program.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

EXPORT void lss_make_calls(void);
void lss_make_calls(void) {
  long self = syscall(SYS_getpid), word = 0, other = 0;
  long from[2] = {(long)&word, sizeof word}, to[2] = {(long)&other, sizeof other};
  struct timespec none = {0, 0};
  static const int without_effect[] = {
      SYS_gettid, SYS_getppid, SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid, SYS_sched_yield,
  };
  for (unsigned i = 0; i < sizeof without_effect / sizeof *without_effect; i++)
    syscall(without_effect[i]);
  static const int of_no_descriptor[] = {
      SYS_read,      SYS_write,     SYS_close,      SYS_fstat,      SYS_pread64, SYS_pwrite64,
      SYS_ftruncate, SYS_fallocate, SYS_connect,    SYS_sendto,     SYS_flock,   SYS_getdents64,
      SYS_getsockopt,
  };
  for (unsigned i = 0; i < sizeof of_no_descriptor / sizeof *of_no_descriptor; i++)
    syscall(of_no_descriptor[i], -1, 0, 0, 0, 0, 0);
  static const int of_no_name[] = {SYS_openat, SYS_unlinkat, SYS_newfstatat, SYS_readlinkat, SYS_renameat};
  for (unsigned i = 0; i < sizeof of_no_name / sizeof *of_no_name; i++)
    syscall(of_no_name[i], AT_FDCWD, "", AT_FDCWD, "", 0);
  long page = syscall(SYS_mmap, 0, 8192, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  syscall(SYS_mprotect, page, 8192, 3);
  syscall(SYS_madvise, page, 4096, 23 /* POPULATE_WRITE */);
  syscall(SYS_madvise, page, 4096, 18 /* WIPEONFORK */);
  syscall(SYS_mremap, page, 8192, 4096, 0);
  syscall(SYS_munmap, page, 4096);
  syscall(SYS_membarrier, 0, 0, 0);
  syscall(SYS_membarrier, 1 << 4, 0, 0);
  syscall(SYS_membarrier, 1 << 3, 0, 0);
  syscall(SYS_tgkill, self, syscall(SYS_gettid), 0);
  syscall(SYS_rt_tgsigqueueinfo, 0, 0, 0, 0);
  syscall(SYS_process_vm_readv, self, to, 1, from, 1, 0);
  syscall(SYS_ppoll, 0, 0, &none, 0, 8);
  syscall(SYS_close, syscall(SYS_socket, 1 /* AF_UNIX */, 02000001, 0));
  syscall(SYS_prctl, 0x59616d61 /* PR_SET_PTRACER */, 0, 0, 0, 0);
  syscall(SYS_sigaltstack, 0, 0);
  syscall(SYS_rt_sigaction, SIGSEGV, 0, 0, 8);
  syscall(SYS_rt_sigprocmask, -1, 0, 0, 8);
  syscall(SYS_rt_sigpending, &word, 8);
  syscall(SYS_nanosleep, &none, 0);
  syscall(SYS_futex, &word, 1 /* WAKE */, 0, 0, 0, 0);
  syscall(SYS_clock_gettime, CLOCK_THREAD_CPUTIME_ID, &none);
  syscall(SYS_prlimit64, 0, 9 /* AS */, 0, 0);
  syscall(SYS_getrandom, &word, 0, 0);
  syscall(SYS_mincore, 0, 0, 0);
  syscall(SYS_munlock, 0, 0);
  syscall(SYS_fstatfs, -1, 0);
  syscall(SYS_kill, self, 0);
  syscall(SYS_clone, 0x10000 /* CLONE_THREAD alone is refused */, 0, 0, 0, 0);
  syscall(SYS_close_range, ~0u, ~0u, 2 /* UNSHARE */);
  syscall(SYS_unshare, 0x400 /* FILES */);
  syscall(SYS_timer_create, -1, 0, 0);
  syscall(SYS_timer_settime, -1, 0, 0, 0);
  syscall(SYS_prctl, 38 /* PR_SET_NO_NEW_PRIVS */, 1, 0, 0, 0);
  syscall(SYS_seccomp, 1 /* SET_MODE_FILTER */, 1 | 8 | 16, 0);
}
