// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * A moment apart from the program's descriptors.
 */
#include "apart.h"

#include <stdbool.h>

#include "sys.h"
#include "thread.h"

#define STACK_BYTES (48u << 10)

enum {
  LS_CLONE_VM = 0x100,
  LS_CLONE_FS = 0x200,
  LS_CLONE_FILES = 0x400,
  LS_CLONE_SIGHAND = 0x800,
  LS_CLONE_VFORK = 0x4000, /* the caller sleeps until the thread has ended */
  LS_CLONE_THREAD = 0x10000,
  LS_CLONE_SYSVSEM = 0x40000,
  LS_CLOSE_RANGE_UNSHARE = 2,
  LS_ERR_AGAIN = 11,
};

struct job {
  long (*work)(void *);
  void *argument;
  long result;
};

/* The thread's number is not that of its libc's data, which it shares with its sleeping maker:
 * it touches none. */
static __attribute__((used, noinline)) void run(struct job *job) {
  /* A table of its own, empty where the kernel can do so at once: a copy would keep files open
   * that the program closes meanwhile. */
  long rc = LS_SYSCALL3(LS_NR_close_range, 0, ~0u, LS_CLOSE_RANGE_UNSHARE);
  if (rc < 0)
    rc = LS_SYSCALL1(LS_NR_unshare, LS_CLONE_FILES);
  job->result = rc < 0 ? rc : job->work(job->argument);
}

/* Returns the thread's number after it has ended, or a negative error number. */
static long run_in_thread(struct job *job, uint8_t *stack_end) {
  long flags = LS_CLONE_VM | LS_CLONE_FS | LS_CLONE_FILES | LS_CLONE_SIGHAND | LS_CLONE_VFORK |
               LS_CLONE_THREAD | LS_CLONE_SYSVSEM;
#ifdef __x86_64__
  long result;
  register long r10 __asm__("r10") = 0;
  register long r8 __asm__("r8") = 0;
  register struct job *r12 __asm__("r12") = job;
  register void (*r13)(struct job *) __asm__("r13") = run;
  __asm__ volatile("syscall\n"
                   "test %%rax, %%rax\n"
                   "jnz 1f\n"
                   "xor %%ebp, %%ebp\n"
                   "mov %%r12, %%rdi\n"
                   "call *%%r13\n"
                   "mov $60, %%eax\n" /* exit */
                   "xor %%edi, %%edi\n"
                   "syscall\n"
                   "1:\n"
                   : "=a"(result)
                   : "a"(56l /* clone */), "D"(flags), "S"(stack_end), "d"(0l), "r"(r10), "r"(r8),
                     "r"(r12), "r"(r13)
                   : "rcx", "r11", "memory", "cc");
  return result;
#else
  register long x8 __asm__("x8") = 220; /* clone */
  register long x0 __asm__("x0") = flags;
  register uint8_t *x1 __asm__("x1") = stack_end;
  register long x2 __asm__("x2") = 0;
  register long x3 __asm__("x3") = 0;
  register long x4 __asm__("x4") = 0;
  register struct job *x19 __asm__("x19") = job;
  register void (*x20)(struct job *) __asm__("x20") = run;
  __asm__ volatile("svc #0\n"
                   "cbnz x0, 1f\n"
                   "mov x29, xzr\n"
                   "mov x0, x19\n"
                   "blr x20\n"
                   "mov x8, #93\n" /* exit */
                   "mov x0, xzr\n"
                   "svc #0\n"
                   "1:\n"
                   : "+r"(x0)
                   : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x19), "r"(x20)
                   : "memory", "cc");
  return x0;
#endif
}

/* The kernel counts the threads as links of their folder. */
static bool is_only_thread(void) {
  struct ls_kernel_stat status;
  return LS_SYSCALL4(LS_NR_newfstatat, LS_AT_FDCWD, "/proc/self/task", &status, 0) == 0 &&
         status.nlink == 3;
}

long ls_apart(long (*work)(void *), void *argument) {
  uint64_t all = ~0ull, before = 0;
  bool blocked = ls_rt_sigprocmask(2 /* SIG_SETMASK */, &all, &before) == 0;
  bool done = is_only_thread();
  if (ls_is_sealed()) { /* no thread of ours: what it would take may not be allowed */
    done |= ls_thread_is_alone();
    long result = done ? work(argument) : -LS_ERR_AGAIN;
    if (blocked)
      ls_rt_sigprocmask(2, &before, NULL);
    return result;
  }
  long result = done ? work(argument) : -LS_ERR_AGAIN;
  if (result < 0) { /* other threads, or no number left: neither is in the way there */
    struct job job = {work, argument, -LS_ERR_AGAIN};
    uint8_t *stack = ls_mmap(NULL, STACK_BYTES, 3, 0x22 /* PRIVATE|ANONYMOUS */, -1, 0);
    long thread = -LS_ERR_AGAIN;
    if ((intptr_t)stack > 0 || (intptr_t)stack < -4095) {
      thread = run_in_thread(&job, stack + STACK_BYTES);
      ls_munmap(stack, STACK_BYTES);
    }
    if (thread > 0)
      result = job.result;
    else if (thread != -LS_ERR_AGAIN && !done) /* an emulated kernel, which knows no such threads */
      result = work(argument);
  }
  ls_rt_sigprocmask(2, &before, NULL);
  return result;
}
