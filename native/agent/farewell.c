// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * The last moment at which the process's memory can be examined: before exit, _exit or a
 * fatal signal takes it away. Whoever was named in LEAKSCOPE_SCAN is told over a socket and
 * waited for; when it dies, is silent for five seconds or was never there, the process goes on
 * to end as it would have.
 *
 * Fatal signals are met by a handler where the program left the default action, and the
 * program keeps seeing the default action. Afterwards the signal does what it would have
 * done, with the same wait status and core.
 */
#include "agent.h"
#include "clock.h"
#include "resolve.h"
#include "seal.h"
#include "str.h"
#include "sys.h"

#define SILENCE_NS 5000000000ll

static const uint8_t fatal[] = {1 /* HUP */, 2 /* INT */,  3 /* QUIT */,  4 /* ILL */,  6 /* ABRT */,
                                7 /* BUS */, 8 /* FPE */, 11 /* SEGV */, 13 /* PIPE */, 15 /* TERM */};
static bool installed;

struct address {
  uint16_t family;
  char path[108];
};

struct poll_entry {
  int fd;
  int16_t events, revents;
};

struct credentials {
  int pid, uid, gid;
};

/* Wait for a byte: 1 when there is one, 0 at the end of the other side or of our patience. */
static int answer(int fd, const struct ls_timespec *patience) {
  struct poll_entry entry = {fd, 1 /* POLLIN */, 0};
  for (;;) {
    long ready = LS_SYSCALL5(LS_NR_ppoll, &entry, 1, patience, 0, 8);
    if (ready == -4 /* EINTR */)
      continue;
    char byte;
    return ready > 0 && ls_read(fd, &byte, 1) == 1;
  }
}

#define UNHEARD_NS 4000000000ull
#define LONGEST_NS 60000000000ull

/* The same without a system call: whoever runs us looks at the recordings of such processes.
 * The coarse clock is a page of memory. */
static void farewell_by_memory(uintptr_t stack_end) {
  struct lsr_header *header = ls_live->header;
  struct ls_thread *thread = ls_tls.thread;
  bool known = thread && !(thread->tid >> 31);
  header->farewell_tid = known ? thread->tid : 0;
  header->farewell_stack_end = known ? stack_end : 0;
  __atomic_store_n(&header->farewell, LSR_FAREWELL_WAITS, __ATOMIC_RELEASE);
  uint64_t start = ls_clock_ns(LS_CLOCK_MONOTONIC_COARSE), heard = start;
  uint32_t beat = header->farewell_beat;
  for (uint64_t rounds = 0; rounds < 1ull << 34; rounds++) { /* should the clock stand still */
    if (__atomic_load_n(&header->farewell, __ATOMIC_ACQUIRE) == LSR_FAREWELL_DONE)
      break;
#ifdef __x86_64__
    __builtin_ia32_pause();
#endif
    uint32_t now_beat = __atomic_load_n(&header->farewell_beat, __ATOMIC_RELAXED);
    uint64_t now = ls_clock_ns(LS_CLOCK_MONOTONIC_COARSE);
    if (now_beat != beat) {
      beat = now_beat;
      heard = now;
    }
    if (now - heard > UNHEARD_NS || now - start > LONGEST_NS)
      break;
    ls_sched_yield(); /* where it is allowed */
  }
  __atomic_store_n(&header->farewell, LSR_FAREWELL_DONE, __ATOMIC_RELEASE);
}

static char *put_hex(char *out, uint64_t value) {
  for (int shift = 60; shift >= 0; shift -= 4)
    *out++ = "0123456789abcdef"[value >> shift & 15];
  *out++ = 0;
  return out;
}

void ls_farewell(uintptr_t stack_end) {
  static uint32_t done_by;
  struct ls_live *live = ls_live;
  uint32_t pid = (uint32_t)ls_getpid();
  if (!ls_config.scan_socket[0] || live->phase != LS_PHASE_RUNNING || !ls_process_is_ours() ||
      __atomic_exchange_n(&done_by, pid, __ATOMIC_ACQ_REL) == pid)
    return;
  if (!ls_seal_ends_as_usual()) {
    farewell_by_memory(stack_end);
    return;
  }
  int fd = (int)LS_SYSCALL3(LS_NR_socket, 1 /* AF_UNIX */, 1 | 02000000 /* STREAM|CLOEXEC */, 0);
  if (fd < 0)
    return;
  uint64_t all = ~0ull, before = 0;
  ls_rt_sigprocmask(2 /* SIG_SETMASK */, &all, &before);
  struct address address = {1, {0}};
  memcpy(address.path, ls_config.scan_socket, sizeof address.path);
  if (LS_SYSCALL3(LS_NR_connect, fd, &address, sizeof address) < 0)
    goto out;
  struct credentials peer;
  uint32_t bytes = sizeof peer;
  if (LS_SYSCALL5(LS_NR_getsockopt, fd, 1 /* SOL_SOCKET */, 17 /* SO_PEERCRED */, &peer, &bytes) == 0)
    LS_SYSCALL5(LS_NR_prctl, 0x59616d61 /* PR_SET_PTRACER */, peer.pid, 0, 0, 0);
  uintptr_t signal_stack[3] = {0}; /* its address may be known to the kernel alone */
  LS_SYSCALL2(LS_NR_sigaltstack, 0, signal_stack);
  /* The recording's path, our thread, the end of its stack, its signal stack. */
  char message[600 + 3 * 17];
  const char *name = ls_recording_path();
  size_t length = 0;
  do
    message[length] = name[length];
  while (name[length++] && length < 600);
  char *end = put_hex(message + length, (uint32_t)ls_gettid());
  end = put_hex(put_hex(end, stack_end), signal_stack[0]);
  length = (size_t)(end - message);
  static const struct ls_timespec silence = {SILENCE_NS / 1000000000, 0};
  if (LS_SYSCALL6(LS_NR_sendto, fd, message, length, 0x4000 /* NOSIGNAL */, 0, 0) ==
          (long)length &&
      answer(fd, &silence)) /* it took the job on */
    answer(fd, NULL);       /* and is done with it, or dead */
out:
  ls_close(fd);
  ls_rt_sigprocmask(2, &before, NULL);
}

/* ---- fatal signals ---- */

static void on_fatal(int number) {
  ls_farewell(0);
  struct ls_sigaction action;
  memset(&action, 0, sizeof action);
  ls_rt_sigaction(number, &action, NULL);
  /* A fault happens again when we return; anything else has to be sent again. It is
   * blocked until then. */
  ls_tgkill(ls_getpid(), ls_gettid(), number);
}

static void meet(int number) { ls_signal_handler(number, on_fatal); }

void ls_farewell_install(void) {
  if (!ls_config.scan_socket[0])
    return;
  for (size_t i = 0; i < sizeof fatal; i++) {
    struct ls_sigaction now;
    memset(&now, 0, sizeof now);
    if (ls_rt_sigaction(fatal[i], NULL, &now) == 0 && now.handler == NULL /* SIG_DFL */)
      meet(fatal[i]);
  }
  installed = true;
}

void ls_farewell_uninstall(void) {
  if (!installed)
    return;
  installed = false;
  for (size_t i = 0; i < sizeof fatal; i++) {
    struct ls_sigaction now;
    memset(&now, 0, sizeof now);
    if (ls_rt_sigaction(fatal[i], NULL, &now) == 0 && now.handler == on_fatal) {
      memset(&now, 0, sizeof now);
      ls_rt_sigaction(fatal[i], &now, NULL);
    }
  }
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

static LS_COLD void *find(void **cache, const char *name) {
  void *found = __atomic_load_n(cache, __ATOMIC_RELAXED);
  if (!found) {
    ls_real_resolve();
    found = ls_next_symbol(name, NULL);
    __atomic_store_n(cache, found, __ATOMIC_RELAXED);
  }
  return found;
}

LS_EXPORT int sigaction(int number, const struct libc_sigaction *set, struct libc_sigaction *ret);
int sigaction(int number, const struct libc_sigaction *set, struct libc_sigaction *ret) {
  static void *cache;
  int (*real)(int, const struct libc_sigaction *, struct libc_sigaction *) =
      (__typeof__(real))find(&cache, "sigaction");
  bool resets = set && set->handler == NULL; /* before: `ret` may be the same memory */
  int result = real(number, set, ret);
  if (result == 0 && is_met(number)) {
    if (ret && ret->handler == on_fatal)
      memset(ret, 0, sizeof *ret);
    if (resets)
      meet(number);
  }
  return result;
}

typedef void (*handler_function)(int);
typedef handler_function (*signal_function)(int, handler_function);

static handler_function shown(handler_function old, int number, handler_function set) {
  if (old == (handler_function)-1 || !is_met(number))
    return old;
  if (set == NULL)
    meet(number);
  return old == on_fatal ? NULL : old;
}

#define SIGNAL_LIKE(name)                                            \
  LS_EXPORT handler_function name(int number, handler_function set); \
  handler_function name(int number, handler_function set) {          \
    static void *cache;                                              \
    signal_function real = (signal_function)find(&cache, #name);     \
    return shown(real(number, set), number, set);                    \
  }
SIGNAL_LIKE(signal)
SIGNAL_LIKE(bsd_signal)
SIGNAL_LIKE(sysv_signal)
SIGNAL_LIKE(__sysv_signal)
SIGNAL_LIKE(ssignal)

/* ---- ends without exit() ---- */

LS_EXPORT void _exit(int status) __attribute__((noreturn));
void _exit(int status) {
  ls_process_ends();
  ls_exit_group(status);
}

LS_EXPORT void _Exit(int status) __attribute__((noreturn));
void _Exit(int status) { _exit(status); }

LS_EXPORT void quick_exit(int status) __attribute__((noreturn));
void quick_exit(int status) {
  static void *cache;
  void (*real)(int) = (__typeof__(real))find(&cache, "quick_exit");
  ls_process_ends();
  if (real)
    real(status);
  ls_exit_group(status);
}
