// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Fatal signals and ends without exit().
 *
 * Signals are met by a handler where the program left the default action, and the program keeps
 * seeing the default action. Afterwards the very signal does what it would have done: the same
 * wait status, and in the core the same registers, si_code and si_addr.
 *
 * Alone, all threads are gone when one dies of a signal. Other threads therefore get nothing done
 * any more while memory is examined: a seccomp filter, which the kernel puts on all of them at
 * once, holds them at their next system call, until they die. Where it cannot be had, nothing
 * is examined.
 */
#include "config.h"
#include "door.h"
#include "endings.h"
#include "farewell.h"
#include "process.h"
#include "resolve.h"
#include "seal.h"
#include "str.h"
#include "sys.h"

#define SA_SIGINFO 4ul
#define SA_ONSTACK 0x08000000ul
#define SA_RESTART 0x10000000ul

static const uint8_t fatal[] = {1 /* HUP */, 2 /* INT */,  3 /* QUIT */,  4 /* ILL */,  6 /* ABRT */,
                                7 /* BUS */, 8 /* FPE */, 11 /* SEGV */, 13 /* PIPE */, 15 /* TERM */};
static bool installed;

/* Process and thread that die of a signal; a fork child has another process number. */
static uint64_t dying;
static uint32_t at_once;
static bool is_holding; /* other threads; a process that does never forks any more */

#ifdef __x86_64__
#define CONTEXT_MASK 296 /* of uc_sigmask in the kernel's struct ucontext */
#else
#define CONTEXT_MASK 40
#endif

/* ---- holding the other threads ---- */

/* Counted by the kernel in the links of a directory; without /proc nobody knows. */
static bool is_single_threaded(void) {
  struct ls_kernel_stat status;
  long rc = LS_SYSCALL4(LS_NR_newfstatat, LS_AT_FDCWD, "/proc/self/task", &status, 0);
  if (rc < 0)
    return ls_is_sealed() && ls_thread_is_alone(); /* it may not be asked */
  return status.nlink == 3;
}

/* A debugger may let the program go on after the signal: its threads must not be held then. */
static bool is_debugged(void) {
  char text[512];
  int fd = ls_open("/proc/self/status", 02000000 /* O_RDONLY|O_CLOEXEC */, 0);
  if (fd < 0)
    return true; /* in doubt */
  long length = ls_read(fd, text, sizeof text - 1);
  ls_close(fd);
  static const char key[] = "\nTracerPid:\t";
  for (long i = 0; i + (long)sizeof key <= length; i++) {
    size_t same = 0;
    while (same < sizeof key - 1 && text[i + same] == key[same])
      same++;
    if (same == sizeof key - 1)
      return text[i + same] != '0';
  }
  return true;
}

struct instruction {
  uint16_t code;
  uint8_t if_true, if_false;
  uint32_t value;
};

extern const char __ehdr_start[] __attribute__((visibility("hidden")));
extern const char etext[] __attribute__((visibility("hidden")));

/* Should this thread ever be held itself, the kernel ends the process after this time. */
static bool die_in_any_case(void) {
  struct {
    uint64_t value;
    int number, notify; /* SIGEV_SIGNAL */
    uint64_t rest[6];
  } event;
  memset(&event, 0, sizeof event);
  event.number = 9;
  const struct ls_timespec when[2] = {{0, 0}, {90, 0}}; /* never again; from now */
  int timer = 0;
  return LS_SYSCALL3(LS_NR_timer_create, LS_CLOCK_MONOTONIC, &event, &timer) == 0 &&
         LS_SYSCALL4(LS_NR_timer_settime, timer, 0, when, NULL) == 0;
}

/* From here on every thread sleeps in its next system call that is not made by this library.
 * There is no way back: only for a process that is certain to die. */
static bool hold_others(void) {
  uint64_t low = (uint64_t)__ehdr_start, high = (uint64_t)etext;
  /* What a filter of the program's allows of this is not tried out: a call too many kills. */
  if (ls_is_sealed() || low >> 32 != high >> 32 || is_debugged())
    return false;
  enum { LOAD = 0x20, EQUAL = 0x15, AT_LEAST = 0x35, RETURN = 0x06 };
  const struct instruction code[] = {
      {LOAD, 0, 0, 0}, /* seccomp_data.nr; the vDSO makes the first, and no harm comes of either */
      {EQUAL, 6, 0, LS_NR_clock_gettime},
      {EQUAL, 5, 0, LS_NR_rt_sigreturn},
      {LOAD, 0, 0, 12}, /* upper half of seccomp_data.instruction_pointer */
      {EQUAL, 0, 4, (uint32_t)(low >> 32)},
      {LOAD, 0, 0, 8},
      {AT_LEAST, 0, 2, (uint32_t)low},
      {AT_LEAST, 1, 0, (uint32_t)high},
      {RETURN, 0, 0, 0x7fff0000 /* ALLOW */},
      {RETURN, 0, 0, 0x7fc00000 /* USER_NOTIF: until somebody answers, and nobody will */},
  };
  const struct {
    uint16_t length;
    const struct instruction *code;
  } program = {sizeof code / sizeof *code, code};
  if (!die_in_any_case() || LS_SYSCALL5(LS_NR_prctl, 38 /* PR_SET_NO_NEW_PRIVS */, 1, 0, 0, 0) < 0)
    return false;
  /* TSYNC | NEW_LISTENER | TSYNC_ESRCH; the listener stays open until the end. */
  is_holding = LS_SYSCALL3(LS_NR_seccomp, 1 /* SET_MODE_FILTER */, 1 | 8 | 16, &program) >= 0;
  return is_holding;
}

/* ---- fatal signals ---- */

static void on_fatal(int number, void *info, void *context);
#define ON_FATAL ((void (*)(int))(uintptr_t)on_fatal)

bool ls_is_our_handler(void (*handler)(int)) { return handler == ON_FATAL; }

bool ls_is_dying_at_once(void) { return __atomic_load_n(&at_once, __ATOMIC_RELAXED); }

static void set_default(int number) {
  struct ls_sigaction action;
  memset(&action, 0, sizeof action);
  ls_rt_sigaction(number, &action, NULL);
}

static void meet(int number) {
  ls_signal_action(number, ON_FATAL, SA_SIGINFO | SA_ONSTACK | SA_RESTART);
}

static bool is_worth_holding(void) {
  return ls_config.scan_socket[0] && ls_live->phase == LS_PHASE_RUNNING && ls_process_is_ours();
}

/* For a process that is certain to die. No handler of the program runs in this thread any more. */
static void say_farewell(void) {
  uint64_t before;
  ls_block_handled(&before);
  if (is_worth_holding())
    ls_farewell(0, is_single_threaded() || hold_others() ? LS_FAREWELL : LS_FAREWELL_CROWD);
}

static void on_fatal(int number, void *info, void *context) {
  int pid = ls_getpid(), tid = ls_gettid();
  if (pid == 1) { /* a fork child in a new namespace, before it recorded anything */
    ls_farewell_after_fork();
    return;
  }
  uint64_t mine = (uint64_t)(uint32_t)pid << 32 | (uint32_t)tid;
  uint64_t other = __atomic_load_n(&dying, __ATOMIC_ACQUIRE);
  if (other >> 32 == (uint32_t)pid ||
      !__atomic_compare_exchange_n(&dying, &other, mine, false, __ATOMIC_ACQ_REL,
                                   __ATOMIC_ACQUIRE)) {
    /* The process dies of another signal already: of that one alone, and now. */
    __atomic_store_n(&at_once, 1, __ATOMIC_RELAXED);
    struct ls_timespec nap = {0, 1000000};
    while (other != mine)
      ls_nanosleep(&nap);
    return;
  }
  __atomic_store_n(&at_once, 0, __ATOMIC_RELAXED);
  say_farewell();
  set_default(number);
  /* Held threads include this one when it has left us: nothing but its death may come then. */
  if (is_holding)
    *(uint64_t *)((uint8_t *)context + CONTEXT_MASK) = ~(1ull << (number - 1));
  /* Blocked until this handler returns, so to where it came; then it is met there again, with
   * all that the kernel said about it. The kernel lets a process send itself any siginfo. */
  if (LS_SYSCALL4(LS_NR_rt_tgsigqueueinfo, pid, tid, number, info) < 0)
    ls_tgkill(pid, tid, number);
}

void ls_farewell_install(void) {
  /* The kernel keeps the first process of a namespace from signals that it has no handler for. */
  if (!ls_config.scan_socket[0] || ls_getpid() == 1)
    return;
  for (size_t i = 0; i < sizeof fatal; i++) {
    struct ls_sigaction now;
    memset(&now, 0, sizeof now);
    if (ls_rt_sigaction(fatal[i], NULL, &now) == 0 && now.handler == NULL /* SIG_DFL */)
      meet(fatal[i]);
  }
  installed = true;
}

static bool has_our_handler(int number) {
  struct ls_sigaction now;
  memset(&now, 0, sizeof now);
  return ls_rt_sigaction(number, NULL, &now) == 0 && ls_is_our_handler(now.handler);
}

void ls_farewell_uninstall(void) {
  if (!installed)
    return;
  installed = false;
  for (size_t i = 0; i < sizeof fatal; i++)
    if (has_our_handler(fatal[i]))
      set_default(fatal[i]);
}

void ls_farewell_after_fork(void) {
  if (ls_getpid() == 1)
    ls_farewell_uninstall();
}

static bool is_met(int number) {
  if (!installed)
    return false;
  for (size_t i = 0; i < sizeof fatal; i++)
    if (fatal[i] == number)
      return true;
  return false;
}

/* glibc and musl agree on this on x86-64 and aarch64. */
struct libc_sigaction {
  void (*handler)(int);
  uint64_t mask[16];
  int flags;
  void (*restorer)(void);
};

typedef int (*sigaction_function)(int, const struct libc_sigaction *, struct libc_sigaction *);

static int change(sigaction_function real, int number, const struct libc_sigaction *set,
                  struct libc_sigaction *ret) {
  bool resets = set && set->handler == NULL; /* before: `ret` may be the same memory */
  int result = real(number, set, ret);
  if (result == 0 && is_met(number)) {
    if (ret && ls_is_our_handler(ret->handler))
      memset(ret, 0, sizeof *ret);
    if (resets)
      meet(number);
  }
  return result;
}

#define SIGACTION_LIKE(name)                                                             \
  LS_EXPORT int name(int number, const struct libc_sigaction *set, struct libc_sigaction *ret); \
  int name(int number, const struct libc_sigaction *set, struct libc_sigaction *ret) {   \
    static void *cache;                                                                  \
    return change((sigaction_function)ls_next_symbol_cached(&cache, "sigaction"), number, set, ret);      \
  }
SIGACTION_LIKE(sigaction)
SIGACTION_LIKE(__sigaction)

typedef void (*handler_function)(int);
typedef handler_function (*signal_function)(int, handler_function);

static handler_function shown(handler_function old, int number, handler_function set) {
  if (old == (handler_function)-1 || !is_met(number))
    return old;
  if (set == NULL)
    meet(number);
  return ls_is_our_handler(old) ? NULL : old;
}

#define SIGNAL_LIKE(name)                                            \
  LS_EXPORT handler_function name(int number, handler_function set); \
  handler_function name(int number, handler_function set) {          \
    static void *cache;                                              \
    signal_function real = (signal_function)ls_next_symbol_cached(&cache, #name);     \
    return shown(real(number, set), number, set);                    \
  }
SIGNAL_LIKE(signal)
SIGNAL_LIKE(bsd_signal)
SIGNAL_LIKE(sysv_signal)
SIGNAL_LIKE(__sysv_signal)
SIGNAL_LIKE(ssignal)
SIGNAL_LIKE(sigset)

/* ---- a thread that kills its own process ---- */

/* Alone, it does not come back from the call. With a handler the kernel may choose another
 * thread, and this one would go on until that has run: so the farewell is here, and the signal is
 * sent from here, where a system call is not held. */
static void before_sending(int pid, int number) {
  uint64_t blocked = 0;
  if (!is_met(number) || pid != ls_getpid() || !has_our_handler(number) || is_single_threaded())
    return;
  ls_rt_sigprocmask(0, NULL, &blocked);
  if (blocked >> (number - 1) & 1)
    return;
  say_farewell();
  set_default(number);
  if (is_holding)
    LS_SYSCALL2(LS_NR_kill, pid, number);
}

LS_EXPORT int kill(int pid, int number);
int kill(int pid, int number) {
  static void *cache;
  int (*real)(int, int) = (__typeof__(real))ls_next_symbol_cached(&cache, "kill");
  before_sending(pid, number);
  return real(pid, number);
}

LS_EXPORT int sigqueue(int pid, int number, uintptr_t value);
int sigqueue(int pid, int number, uintptr_t value) {
  static void *cache;
  int (*real)(int, int, uintptr_t) = (__typeof__(real))ls_next_symbol_cached(&cache, "sigqueue");
  before_sending(pid, number);
  return real(pid, number, value);
}

/* ---- ends without exit() ---- */

void ls_process_exits(void) {
  bool crowd = false;
  if (ls_live && is_worth_holding() && !is_single_threaded()) {
    uint64_t before;
    ls_block_handled(&before);
    crowd = !hold_others();
  }
  ls_process_ends_as(crowd ? LS_FAREWELL_CROWD : LS_FAREWELL);
}

LS_EXPORT void _exit(int status) __attribute__((noreturn));
void _exit(int status) {
  ls_process_exits();
  ls_exit_group(status);
}

LS_EXPORT void _Exit(int status) __attribute__((noreturn));
void _Exit(int status) { _exit(status); }

LS_EXPORT void quick_exit(int status) __attribute__((noreturn));
void quick_exit(int status) {
  static void *cache;
  void (*real)(int) = (__typeof__(real))ls_next_symbol_cached(&cache, "quick_exit");
  ls_process_ends();
  if (real)
    real(status);
  ls_exit_group(status);
}
