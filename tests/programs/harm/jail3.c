// SPDX-License-Identifier: Apache-2.0
/* A sandboxed program: MODE says how the filter comes, the second argument what it does with a
 * call that is not allowed. Allows very few calls, loses 200 blocks in work(), ends with 4. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/audit.h>
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
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifdef __aarch64__
#define HERE AUDIT_ARCH_AARCH64
#else
#define HERE AUDIT_ARCH_X86_64
#endif

static struct sock_filter code[200];
static struct sock_fprog program = {0, code};
static void put(struct sock_filter in) { code[program.len++] = in; }
static void load(unsigned at) { put((struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, at)); }
static void end(unsigned action) { put((struct sock_filter)BPF_STMT(BPF_RET | BPF_K, action)); }
static void if_not_skip(unsigned value, unsigned by) {
  put((struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, by));
}
static void allow(int number) {
  if_not_skip(number, 1);
  end(SECCOMP_RET_ALLOW);
}

static void build(unsigned otherwise, int more) {
  program.len = 0;
  load(offsetof(struct seccomp_data, arch));
  put((struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, HERE, 1, 0));
  end(SECCOMP_RET_KILL_PROCESS);
  load(offsetof(struct seccomp_data, nr));
  int few[] = {SYS_read, SYS_write, SYS_brk, SYS_mmap, SYS_munmap, SYS_mremap, SYS_exit, SYS_exit_group,
               SYS_rt_sigreturn, SYS_futex, SYS_clock_nanosleep};
  for (unsigned i = 0; i < sizeof few / sizeof *few; i++)
    allow(few[i]);
  int threads[] = {SYS_clone, SYS_clone3, SYS_mprotect, SYS_madvise, SYS_set_robust_list, SYS_rseq,
                   SYS_rt_sigprocmask, SYS_gettid, SYS_sched_getaffinity, SYS_prlimit64, SYS_wait4,
                   SYS_set_tid_address, SYS_prctl, SYS_seccomp, SYS_rt_sigaction, SYS_getpid, SYS_tgkill};
  for (unsigned i = 0; i < sizeof threads / sizeof *threads && more; i++)
    allow(threads[i]);
  end(otherwise);
}

static long bare(long n, long a, long b, long c, long d, long e) {
  long result;
#ifdef __x86_64__
  register long r10 __asm__("r10") = d, r8 __asm__("r8") = e;
  __asm__ volatile("syscall" : "=a"(result) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                   : "rcx", "r11", "memory");
#else
  register long x8 __asm__("x8") = n, x0 __asm__("x0") = a, x1 __asm__("x1") = b;
  register long x2 __asm__("x2") = c, x3 __asm__("x3") = d, x4 __asm__("x4") = e;
  __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
  result = x0;
#endif
  return result;
}

static void install(void) {
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) {
    perror("seccomp");
    _exit(9);
  }
}

static int trapped;
static void on_trap(int number) { trapped++; }

static __attribute__((noinline)) void work(void) {
  for (int i = 0; i < 200; i++) {
    char *volatile lost = malloc(40 + i % 50);
    lost[0] = 1;
    lost = NULL;
    free(malloc(3000 + i * 16));
  }
}

static void *other(void *how) {
  for (int i = 0; i < 20000; i++)
    free(malloc(i % 900 + 1));
  if (how) {
    build(SECCOMP_RET_KILL_PROCESS, 1);
    syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
  }
  for (int i = 0; i < 20000; i++)
    free(malloc(i % 900 + 1));
  return NULL;
}

int main(int argc, char **argv) {
  const char *mode = argv[1], *what = argc > 2 ? argv[2] : "kill";
  unsigned otherwise = !strcmp(what, "errno")    ? SECCOMP_RET_ERRNO | EPERM
                       : !strcmp(what, "trap")   ? SECCOMP_RET_TRAP
                       : !strcmp(what, "thread") ? SECCOMP_RET_KILL_THREAD
                       : !strcmp(what, "trace")  ? SECCOMP_RET_TRACE
                       : !strcmp(what, "log")    ? SECCOMP_RET_LOG
                                                 : SECCOMP_RET_KILL_PROCESS;
  static char buffer[4096];
  setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
  signal(SIGSYS, on_trap);
  free(malloc(100));
  build(otherwise, !strcmp(mode, "threads") || !strcmp(mode, "tsync") || !strcmp(mode, "fork") ||
                       !strcmp(mode, "twice"));
  if (!strcmp(mode, "tsync") || !strcmp(mode, "bare"))
    bare(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  else
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  if (!strcmp(mode, "syscall")) {
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program))
      return 9;
  } else if (!strcmp(mode, "unseen")) { /* only the warning is seen */
    if (bare(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, (long)&program, 0, 0))
      return 9;
  } else if (!strcmp(mode, "asked")) { /* is there such a thing? */
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, NULL) != -1 || errno != EFAULT)
      return 8;
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, (void *)-4096) != -1 || errno != EFAULT)
      return 7;
    code[3].code = 0xff; /* refused */
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != -1 || errno != EINVAL)
      return 6;
    build(otherwise, 0);
    install();
  } else if (!strcmp(mode, "twice")) {
    install();
    build(otherwise, 0);
    install();
  } else if (!strcmp(mode, "threads")) {
    install();
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
      pthread_create(&threads[i], NULL, other, NULL);
    for (int i = 0; i < 4; i++)
      pthread_join(threads[i], NULL);
  } else if (!strcmp(mode, "tsync")) {
    pthread_t threads[4];
    for (long i = 0; i < 4; i++)
      pthread_create(&threads[i], NULL, other, (void *)(i == 3 ? 1L : 0L));
    for (int i = 0; i < 4; i++)
      pthread_join(threads[i], NULL);
  } else if (!strcmp(mode, "fork")) {
    install();
    pid_t child = fork();
    if (!child) {
      work();
      _exit(3);
    }
    int status;
    waitpid(child, &status, 0);
    printf("child %d\n", WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status));
  } else if (!strcmp(mode, "place")) { /* only calls from the C library's own code */
    install();
  } else {
    install();
  }
  work();
  printf("jail done, %d traps\n", trapped);
  fflush(stdout);
  if (!strcmp(what, "stop"))
    raise(SIGSTOP);
  return 4;
}
