// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * The last moment at which the process's memory can be examined: before exit, _exit or a
 * fatal signal takes it away. Whoever was named in LEAKSCOPE_SCAN is told over a socket and
 * waited for as long as it gives a sign of life every two seconds, and never longer than a
 * minute. This thread is not stopped meanwhile: it is itself that sees to the limits, so they
 * hold whatever becomes of the other side. A signal that would end the program ends it at once.
 */
#include "config.h"
#include "endings.h"
#include "farewell.h"
#include "process.h"
#include "recording_file.h"
#include "seal.h"
#include "str.h"
#include "sys.h"

#define SILENCE_NS 2000000000ull
#define LONGEST_NS 60000000000ull
#define SLICE_NS 100000000ll /* between two looks at the clock and at pending signals */

#define EINTR 4

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

void ls_block_handled(uint64_t *ret_before) {
  ls_rt_sigprocmask(0 /* SIG_BLOCK */, NULL, ret_before);
  uint64_t handled = 0;
  for (int number = 1; number <= 64; number++) {
    struct ls_sigaction now;
    memset(&now, 0, sizeof now);
    if (ls_rt_sigaction(number, NULL, &now) == 0 && (uintptr_t)now.handler > 1 /* SIG_IGN */ &&
        !ls_is_our_handler(now.handler))
      handled |= 1ull << (number - 1);
  }
  ls_rt_sigprocmask(0, &handled, NULL);
}

/* Signals that ask a program to end, and that it will handle afterwards. */
static uint64_t requests_to_end(void) {
  uint64_t pending = 0;
  LS_SYSCALL2(LS_NR_rt_sigpending, &pending, sizeof pending);
  return pending & (1ull << (1 - 1) | 1ull << (2 - 1) | 1ull << (3 - 1) | 1ull << (15 - 1));
}

/* The fine clock reads the cycle counter, which may be forbidden. */
static uint64_t now_ns(void) {
  return ls_clock_ns(ls_is_sealed() || ls_no_cycle_counter ? LS_CLOCK_MONOTONIC_COARSE
                                                           : LS_CLOCK_MONOTONIC);
}

/* Waits until the other side closes the connection. False: it fell silent. */
static bool wait_for(int fd) {
  uint64_t requests = requests_to_end();
  uint64_t start = now_ns(), heard = start;
  for (;;) {
    struct poll_entry entry = {fd, 1 /* POLLIN */, 0};
    struct ls_timespec slice = {0, SLICE_NS};
    long ready = LS_SYSCALL5(LS_NR_ppoll, &entry, 1, &slice, 0, 8);
    uint64_t now = now_ns();
    if (ready > 0) {
      char signs[64];
      if (ls_read(fd, signs, sizeof signs) <= 0)
        return true;
      heard = now;
    } else if (ready < 0 && ready != -EINTR) {
      return true;
    }
    if (ls_is_dying_at_once() || (requests_to_end() & ~requests) || now - start > LONGEST_NS)
      return true;
    if (now - heard > SILENCE_NS)
      return false;
  }
}

/* A child that ends with nothing of its own: what it holds is its parent's. */
static bool has_nothing(const struct ls_live *live) {
  if (!live->header->forked_from)
    return false;
  for (uint32_t i = 0; i < LSR_SHARDS; i++)
    if (live->shards[i].live)
      return false;
  return true;
}

#define UNHEARD_NS 4000000000ull

/* The same without a system call: whoever runs us looks at the recordings of such processes.
 * The coarse clock is a page of memory. */
static void farewell_by_memory(uintptr_t stack_end, uintptr_t sp) {
  struct lsr_header *header = ls_live->header;
  struct ls_thread *thread = ls_tls.thread;
  bool known = thread && !(thread->tid >> 31);
  header->farewell_tid = known ? thread->tid : 0;
  header->farewell_stack_end = known ? stack_end : 0;
  header->farewell_sp = known ? sp : 0;
  header->farewell_tls = known ? ls_thread_pointer() : 0;
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

void ls_farewell(uintptr_t stack_end, enum ls_farewell_kind kind) {
  static uint32_t done_by;
  struct ls_live *live = ls_live;
  uint32_t pid = (uint32_t)ls_getpid();
  if (!ls_config.scan_socket[0] || live->phase != LS_PHASE_RUNNING || !ls_process_is_ours() ||
      __atomic_exchange_n(&done_by, pid, __ATOMIC_ACQ_REL) == pid || has_nothing(live))
    return;
  /* Registers that may hold the program's pointers go to the stack, where they are seen. */
  __builtin_unwind_init();
  uintptr_t sp;
#ifdef __x86_64__
  __asm__ volatile("mov %%rsp, %0" : "=r"(sp));
#else
  __asm__ volatile("mov %0, sp" : "=r"(sp));
#endif
  if (!ls_seal_ends_as_usual()) {
    if (kind == LS_FAREWELL)
      farewell_by_memory(stack_end, sp);
    return;
  }
  /* Not blocking: the queue of a listener that was stopped fills up. */
  int fd = (int)LS_SYSCALL3(LS_NR_socket, 1 /* AF_UNIX */,
                            1 | 02000000 | 04000 /* STREAM|CLOEXEC|NONBLOCK */, 0);
  if (fd < 0)
    return;
  uint64_t before = 0;
  ls_block_handled(&before);
  struct address address = {1, {0}};
  memcpy(address.path, ls_config.scan_socket, sizeof address.path);
  if (LS_SYSCALL3(LS_NR_connect, fd, &address, sizeof address) < 0)
    goto out;
  struct credentials peer;
  uint32_t bytes = sizeof peer;
  if (kind == LS_FAREWELL &&
      LS_SYSCALL5(LS_NR_getsockopt, fd, 1 /* SOL_SOCKET */, 17 /* SO_PEERCRED */, &peer, &bytes) == 0)
    LS_SYSCALL5(LS_NR_prctl, 0x59616d61 /* PR_SET_PTRACER */, peer.pid, 0, 0, 0);
  uintptr_t signal_stack[3] = {0}; /* its address may be known to the kernel alone */
  LS_SYSCALL2(LS_NR_sigaltstack, 0, signal_stack);
  /* The recording's path; our thread, the end of its stack, its signal stack, its stack
   * pointer and thread pointer; and whether we wait. */
  char message[600 + 6 * 17];
  const char *name = ls_recording_path();
  size_t length = 0;
  do
    message[length] = name[length];
  while (name[length++] && length < 600);
  char *end = put_hex(message + length, (uint32_t)ls_gettid());
  end = put_hex(put_hex(end, stack_end), signal_stack[0]);
  end = put_hex(put_hex(end, sp), ls_thread_pointer());
  end = put_hex(end, kind);
  length = (size_t)(end - message);
  if (LS_SYSCALL6(LS_NR_sendto, fd, message, length, 0x4000 | 0x40 /* NOSIGNAL|DONTWAIT */, 0, 0) ==
          (long)length &&
      kind == LS_FAREWELL && !wait_for(fd))
    /* It was stopped, say: nobody after us waits in vain. When it goes on it sees this and
     * makes the socket anew. */
    ls_unlink(ls_config.scan_socket);
out:
  ls_close(fd);
  ls_rt_sigprocmask(2 /* SIG_SETMASK */, &before, NULL);
}
