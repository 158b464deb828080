// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * The C library's ways to make any system call: those that change what the agent may do, or
 * rely on, are looked at before they are made.
 */
#include "aside.h"
#include "door.h"
#include "endings.h"
#include "exec.h"
#include "forks.h"
#include "peek.h"
#include "process.h"
#include "resolve.h"
#include "seal.h"
#include "sys.h"

enum {
  SET_SECCOMP = 22, /* of prctl */
  SET_TSC = 26,
  SET_NO_NEW_PRIVS = 38,
  MODE_STRICT = 1,
  MODE_FILTER = 2,
  SET_MODE_STRICT = 0, /* of seccomp */
  SET_MODE_FILTER = 1,
};

/* True: a filter is being installed. */
static bool before_prctl(long option, long a, long b) {
  if (option == SET_SECCOMP && a == MODE_FILTER)
    return ls_seal_announce((const void *)b);
  if (option == SET_SECCOMP && a == MODE_STRICT)
    ls_seal_deny_all(true);
  else if (option == SET_NO_NEW_PRIVS && a == 1)
    ls_seal_deny_all(false); /* a filter that a bare instruction installs is not seen */
  else if (option == SET_TSC)
    ls_no_cycle_counter = 1;
  return false;
}

LS_EXPORT int prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d);
int prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d) {
  static void *cache;
  int (*real)(int, ...) = (__typeof__(real))ls_next_symbol_cached(&cache, "prctl");
  bool installs = before_prctl(option, (long)a, (long)b);
  int result = real(option, a, b, c, d);
  if (LS_UNLIKELY(installs))
    ls_seal_settle(result >= 0);
  return result;
}

#ifdef LS_INJECT
/* No frame of ours may be below the call, which may be a clone that returns on another stack. */
__attribute__((used)) static void *before_syscall(long number, long a, long b, long c) {
  static void *cache;
  if ((number == LS_NR_seccomp && a == SET_MODE_STRICT && !b && !c) ||
      (number == LS_NR_prctl && a == SET_SECCOMP && b == MODE_STRICT))
    ls_seal_deny_all(true);
  else if ((number == LS_NR_seccomp && a == SET_MODE_FILTER) ||
           (number == LS_NR_prctl && (a == SET_SECCOMP || a == SET_NO_NEW_PRIVS)))
    ls_seal_deny_all(false);
  return ls_next_symbol_cached(&cache, "syscall");
}

__asm__(".text\n"
        ".globl syscall\n"
        ".type syscall, %function\n"
        "syscall:\n"
#ifdef __x86_64__
        "push %rdi; push %rsi; push %rdx; push %rcx; push %r8; push %r9; sub $8, %rsp\n"
        "call before_syscall\n"
        "add $8, %rsp; pop %r9; pop %r8; pop %rcx; pop %rdx; pop %rsi; pop %rdi\n"
        "jmp *%rax\n"
#else
        "stp x0, x1, [sp, #-80]!; stp x2, x3, [sp, #16]; stp x4, x5, [sp, #32]\n"
        "stp x6, x7, [sp, #48]; str x30, [sp, #64]\n"
        "bl before_syscall\n"
        "mov x16, x0\n"
        "ldr x30, [sp, #64]; ldp x6, x7, [sp, #48]; ldp x4, x5, [sp, #32]\n"
        "ldp x2, x3, [sp, #16]; ldp x0, x1, [sp], #80\n"
        "br x16\n"
#endif
        ".size syscall, . - syscall\n");
#else
static bool before_call(long number, long a, long b, long c, long d, long e) {
  switch (number) {
  case LS_NR_prctl:
    return before_prctl(a, b, c);
  case LS_NR_seccomp:
    if (a == SET_MODE_FILTER)
      return ls_seal_announce((const void *)c);
    if (a == SET_MODE_STRICT && !b && !c)
      ls_seal_deny_all(true);
    break;
  case LS_NR_mmap:
    if (d & 0x10 /* FIXED */)
      ls_aside_touched((uintptr_t)a, (uint64_t)b);
    break;
  case LS_NR_munmap:
  case LS_NR_mprotect:
  case LS_NR_pkey_mprotect:
    ls_aside_touched((uintptr_t)a, (uint64_t)b);
    break;
  case LS_NR_madvise:
    if (ls_aside_destroys((int)c))
      ls_aside_touched((uintptr_t)a, (uint64_t)b);
    break;
  case LS_NR_mremap:
    ls_aside_touched((uintptr_t)a, (uint64_t)b);
    if (d & 2 /* FIXED */)
      ls_aside_touched((uintptr_t)e, (uint64_t)c);
    break;
  case LS_NR_clone:
    if (a & 0x100 /* VM */ && !(a & 0x10000 /* THREAD */))
      ls_exec_memory_is_shared();
    break;
  case LS_NR_clone3: {
    uint64_t flags;
    if (ls_peek(&flags, (uintptr_t)a, sizeof flags) && flags & 0x100 && !(flags & 0x10000))
      ls_exec_memory_is_shared();
    break;
  }
  case LS_NR_exit_group:
    ls_process_exits();
    ls_exit_group((int)a); /* from here: what holds the other threads would hold the C library's */
  case LS_NR_exit:
    ls_process_thread_ends();
    break;
  }
  return false;
}

LS_EXPORT long syscall(long number, long a, long b, long c, long d, long e, long f);
long syscall(long number, long a, long b, long c, long d, long e, long f) {
  static void *cache;
  long (*real)(long, ...) = (__typeof__(real))ls_next_symbol_cached(&cache, "syscall");
  bool installs = before_call(number, a, b, c, d, e);
  long result = real(number, a, b, c, d, e, f);
  if (LS_UNLIKELY(installs))
    ls_seal_settle(result >= 0);
  if (LS_UNLIKELY(!result))
    ls_forks_after_call(number, a);
  return result;
}
#endif
