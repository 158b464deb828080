// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * What the system call filters of this process allow, and getting ready for them.
 *
 * A filter that returns an error number is answered for without asking the kernel; what one
 * kills, traps, notifies or logs is not called at all and fails like an unknown call.
 *
 * Source: Linux, kernel/seccomp.c and Documentation/userspace-api/seccomp_filter.rst; the
 * machine of the filters is that of classic BPF (net/core/filter.c), of which seccomp allows a
 * part.
 */
#include "seal.h"

#include "apart.h"
#include "blocks.h"
#include "config.h"
#include "endings.h"
#include "private.h"
#include "process.h"
#include "space.h"
#include "str.h"
#include "sys.h"

#define MAX_FILTERS 32u
#define MAX_INSTRUCTIONS 4096u /* the kernel's own limit */

#ifdef __aarch64__
#define THIS_ARCH 0xC00000B7u
#else
#define THIS_ARCH 0xC000003Eu
#endif

enum { LS_ERR_NOSYS = 38 };

enum {
  ACTION_ALLOW = 0x7fff0000,
  ACTION_ERRNO = 0x00050000,
};

/* What a filter sees of a call. */
struct call {
  int32_t number;
  uint32_t arch;
  uint64_t instruction;
  uint64_t arguments[6];
};

struct instruction {
  uint16_t code;
  uint8_t if_true, if_false;
  uint32_t k;
};

struct filter {
  const struct instruction *code;
  uint32_t length;
};

static struct filter filters[MAX_FILTERS]; /* copied by fork, as the kernel's are */
static uint32_t filter_count; /* with one that is just being installed */
static bool nothing;          /* no call at all: strict mode, or there may be filters that we do not know */
static bool for_ever;         /* so it stays: strict mode, or filters from before us */
/* The same, without what is just being installed: for the calls made meanwhile. */
static uint32_t in_force;
static bool nothing_in_force;
static uint32_t unseen; /* filters from before us, known to punish nothing of ours */

/* ---- one call, at an address that a filter may look at ---- */

long ls_call_at_known_address(long number, long a, long b, long c, long d, long e, long f)
    __attribute__((visibility("hidden")));
extern const char ls_known_address[] __attribute__((visibility("hidden")));
#ifdef __x86_64__
__asm__(".text\n.balign 16\n.hidden ls_call_at_known_address\n.globl ls_call_at_known_address\n"
        ".type ls_call_at_known_address, @function\n"
        ".hidden ls_known_address\n.globl ls_known_address\n"
        "ls_call_at_known_address:\n.cfi_startproc\n"
        "mov %rdi, %rax\nmov %rsi, %rdi\nmov %rdx, %rsi\nmov %rcx, %rdx\n"
        "mov %r8, %r10\nmov %r9, %r8\nmov 8(%rsp), %r9\nsyscall\n"
        "ls_known_address:\nret\n.cfi_endproc\n"
        ".size ls_call_at_known_address, . - ls_call_at_known_address\n");
#else
__asm__(".text\n.balign 16\n.hidden ls_call_at_known_address\n.globl ls_call_at_known_address\n"
        ".type ls_call_at_known_address, %function\n"
        ".hidden ls_known_address\n.globl ls_known_address\n"
        "ls_call_at_known_address:\n.cfi_startproc\n"
        "mov x8, x0\nmov x0, x1\nmov x1, x2\nmov x2, x3\nmov x3, x4\nmov x4, x5\nmov x5, x6\nsvc #0\n"
        "ls_known_address:\nret\n.cfi_endproc\n"
        ".size ls_call_at_known_address, . - ls_call_at_known_address\n");
#endif

/* ---- the filters ---- */

enum { CLASS_LD, CLASS_LDX, CLASS_ST, CLASS_STX, CLASS_ALU, CLASS_JMP, CLASS_RET, CLASS_MISC };

static bool compute(uint16_t code, uint32_t *a, uint32_t operand) {
  switch (code & 0xf0) {
  case 0x00: *a += operand; return true;
  case 0x10: *a -= operand; return true;
  case 0x20: *a *= operand; return true;
  case 0x30: *a = operand ? *a / operand : 0; return operand != 0;
  case 0x40: *a |= operand; return true;
  case 0x50: *a &= operand; return true;
  case 0x60: *a <<= operand & 31; return true;
  case 0x70: *a >>= operand & 31; return true;
  case 0x80: *a = -*a; return true;
  case 0xa0: *a ^= operand; return true;
  default: return false;
  }
}

static bool holds(uint16_t code, uint32_t a, uint32_t operand) {
  switch (code & 0xf0) {
  case 0x10: return a == operand;
  case 0x20: return a > operand;
  case 0x30: return a >= operand;
  default: return a & operand; /* 0x40 */
  }
}

/* What the filter returns; 0 (kill) for what we cannot make sense of. */
static uint32_t run(const struct filter *filter, const struct call *call) {
  uint32_t a = 0, x = 0, memory[16] = {0};
  for (uint32_t at = 0; at < filter->length; at++) {
    const struct instruction *in = &filter->code[at];
    uint32_t operand = in->code & 0x08 ? x : in->k;
    switch (in->code & 7) {
    case CLASS_LD:
    case CLASS_LDX: {
      uint32_t value;
      switch (in->code & 0xe0) {
      case 0x00: value = in->k; break;
      case 0x20:
        if (in->k > sizeof *call - 4 || in->k & 3)
          return 0;
        memcpy(&value, (const char *)call + in->k, 4);
        break;
      case 0x60: value = memory[in->k & 15]; break;
      case 0x80: value = sizeof *call; break;
      default: return 0;
      }
      *((in->code & 7) == CLASS_LD ? &a : &x) = value;
      break;
    }
    case CLASS_ST: memory[in->k & 15] = a; break;
    case CLASS_STX: memory[in->k & 15] = x; break;
    case CLASS_ALU:
      if (!compute(in->code, &a, operand))
        return 0;
      break;
    case CLASS_JMP: {
      uint32_t by = (in->code & 0xf0) == 0 ? in->k
                    : holds(in->code, a, operand) ? in->if_true : in->if_false;
      if (by >= filter->length - at)
        return 0;
      at += by;
      break;
    }
    case CLASS_RET: return in->code & 0x10 ? a : in->k;
    default: /* CLASS_MISC */
      if (in->code & 0x80)
        a = x;
      else
        x = a;
    }
  }
  return 0;
}

/* What becomes of a call: 1 it is made, else the error number that it fails with. */
static long verdict(uint32_t count, long number, const long arguments[6]) {
  struct call call = {.number = (int32_t)number, .arch = THIS_ARCH,
                      .instruction = (uintptr_t)ls_known_address};
  memcpy(call.arguments, arguments, sizeof call.arguments);
  uint32_t worst = ACTION_ALLOW;
  while (count-- > 0) { /* the newest first, as in the kernel */
    uint32_t answer = run(&filters[count], &call);
    if ((int32_t)(answer & 0xffff0000u) < (int32_t)(worst & 0xffff0000u))
      worst = answer;
  }
  if ((worst & 0xffff0000u) == ACTION_ALLOW)
    return 1;
  uint32_t error = worst & 0xffff;
  return (worst & 0xffff0000u) == ACTION_ERRNO ? -(long)(error > 4095 ? 4095 : error) : -LS_ERR_NOSYS;
}

static long sealed_call(long number, const long arguments[6]) {
  if (__atomic_load_n(&nothing_in_force, __ATOMIC_ACQUIRE))
    return -LS_ERR_NOSYS;
  long allowed = verdict(__atomic_load_n(&in_force, __ATOMIC_ACQUIRE), number, arguments);
  if (allowed != 1)
    return allowed;
  return ls_call_at_known_address(number, arguments[0], arguments[1], arguments[2], arguments[3],
                                  arguments[4], arguments[5]);
}

/* Whether such a call will simply be made. */
static bool allows(long number, long a, long b, long c) {
  const long arguments[6] = {a, b, c, 0, 0, 0};
  return !nothing && verdict(filter_count, number, arguments) == 1;
}

/* ---- getting ready ---- */

static bool keeps_going(void) { /* nothing that the agent does now and then is refused */
  return allows(LS_NR_madvise, 0, 4096, 23) && allows(LS_NR_mremap, 0, 4096, 8192) && allows(LS_NR_mprotect, 0, 4096, 3) &&
         allows(LS_NR_mmap, 0, 4096, 3) && allows(LS_NR_openat, -100, 0, 02000000) &&
         allows(LS_NR_read, 3, 0, 0) && allows(LS_NR_close, 3, 0, 0) &&
         allows(LS_NR_process_vm_readv, 1, 0, 1) && allows(LS_NR_getpid, 0, 0, 0) &&
         allows(LS_NR_gettid, 0, 0, 0);
}

static bool ends_as_usual(void) {
  return allows(LS_NR_socket, 1, 02000001, 0) && allows(LS_NR_connect, 3, 0, 110) &&
         allows(LS_NR_sendto, 3, 0, 0) && allows(LS_NR_ppoll, 0, 1, 0) && allows(LS_NR_gettid, 0, 0, 0) &&
         allows(LS_NR_read, 3, 0, 1) && allows(LS_NR_getpid, 0, 0, 0) &&
         allows(LS_NR_rt_sigprocmask, 2, 0, 0) &&
         allows(LS_NR_rt_sigaction, 11, 0, 0) && allows(LS_NR_tgkill, 1, 1, 11);
}

bool ls_seal_ends_as_usual(void) { return !ls_is_sealed() || ends_as_usual(); }

/* With what comes already known, and calls still as before. */
static void get_ready(void) {
  struct ls_live *live = ls_live;
  if (__atomic_load_n(&live->phase, __ATOMIC_ACQUIRE) != LS_PHASE_RUNNING)
    return;
  bool going = keeps_going(), usual = ends_as_usual();
  if (!usual)
    ls_farewell_uninstall();
  if (live->biased && !(allows(LS_NR_membarrier, 8, 0, 0) && allows(LS_NR_sched_yield, 0, 0, 0)))
    ls_shards_have_no_owners();
  if (!going && !(live->header->trouble & LSR_TROUBLE_SEALED)) {
    ls_private_reserve();
    ls_recording_reserve();
  }
  if (!going || !usual)
    __atomic_fetch_or(&live->header->trouble, LSR_TROUBLE_SEALED, __ATOMIC_RELAXED);
}

/* The old state no longer holds: the kernel is about to be asked. */
static void take_effect(void) {
  __atomic_store_n(&in_force, filter_count, __ATOMIC_RELEASE);
  __atomic_store_n(&nothing_in_force, nothing, __ATOMIC_RELEASE);
  __atomic_store_n(&ls_sealed_call, filter_count || nothing ? sealed_call : NULL, __ATOMIC_SEQ_CST);
}

/* One change at a time; held by whoever is in the middle of one. Not for ever: a fork child
 * may find it held by a thread that it has not got. */
static struct ls_lock change;

static void begin_change(void) {
  for (unsigned spins = 0; spins < 1u << 20 && !ls_trylock(&change); spins++)
    ;
}

/* What the program hands to the kernel; a test for support hands over nothing. */
struct program {
  uint16_t length;
  const struct instruction *code;
};

static bool copy_in(void *to, const void *from, size_t bytes) {
  if ((uintptr_t)from < 4096 || (uintptr_t)from >> 56)
    return false;
  struct ls_iovec local = {to, bytes}, remote = {(void *)from, bytes};
  long got = ls_process_vm_readv(ls_getpid(), &local, 1, &remote, 1, 0);
  if (got == -14 /* EFAULT */)
    return false;
  if (got != (long)bytes) /* may not be asked: a filter is there already */
    memcpy(to, from, bytes);
  return true;
}

static char *put_number(char *out, uint64_t value) {
  char digits[24];
  size_t n = 0;
  do
    digits[n++] = (char)('0' + value % 10);
  while (value /= 10);
  while (n)
    *out++ = digits[--n];
  *out = 0;
  return out;
}

/* ---- across exec: the filters stay, and we forget them ---- */

#define HANDED_OVER 0x5343434c /* "LCCS" */
#ifdef __aarch64__
#define NOFOLLOW 0100000
#else
#define NOFOLLOW 0400000
#endif

struct handed {
  uint32_t magic, count, unseen;
  uint32_t lengths[MAX_FILTERS];
};

static void handed_path(char out[640], int pid) {
  size_t n = 0;
  for (; ls_config.dir[n]; n++)
    out[n] = ls_config.dir[n];
  out[n++] = '/';
  memcpy(put_number(out + n, (uint64_t)pid), ".seccomp", 9);
}

static long hand_over(void *unused) {
  (void)unused;
  char path[640];
  handed_path(path, ls_getpid());
  int fd = ls_open(path, 01 | 0100 | 01000 | NOFOLLOW | 02000000 /* WRONLY|CREAT|TRUNC|CLOEXEC */, 0600);
  if (fd < 0)
    return fd;
  struct handed handed = {.magic = HANDED_OVER, .count = filter_count, .unseen = unseen};
  for (uint32_t i = 0; i < filter_count; i++)
    handed.lengths[i] = filters[i].length;
  bool ok = ls_write(fd, &handed, sizeof handed) == sizeof handed;
  for (uint32_t i = 0; i < filter_count && ok; i++) {
    long bytes = filters[i].length * (long)sizeof *filters[i].code;
    ok = ls_write(fd, filters[i].code, (size_t)bytes) == bytes;
  }
  ls_close(fd);
  if (!ok)
    ls_unlink(path);
  return 0;
}

void ls_seal_hand_over(void) {
  if (ls_config.enabled && ls_config.children && !nothing && filter_count && ls_getpid() > 0)
    ls_apart(hand_over, NULL);
}

static uint32_t own_uid;

static bool take_over(int pid, uint32_t known_to_kernel) {
  char path[640];
  handed_path(path, pid);
  int fd = ls_open(path, 02000000 /* CLOEXEC */ | NOFOLLOW, 0);
  if (fd < 0)
    return false;
  struct handed handed;
  struct ls_stat status;
  /* Nobody else says what kills this process. */
  bool ok = ls_fstat(fd, &status) == 0 && (status.mode & 0170077) == 0100000 &&
            status.uid == own_uid && ls_read(fd, &handed, sizeof handed) == sizeof handed && handed.magic == HANDED_OVER &&
            handed.count <= MAX_FILTERS && handed.count + handed.unseen == known_to_kernel;
  for (uint32_t i = 0; ok && i < handed.count; i++) {
    size_t bytes = handed.lengths[i] * sizeof(struct instruction);
    ok = handed.lengths[i] && handed.lengths[i] <= MAX_INSTRUCTIONS;
    void *code = ok ? ls_mmap(NULL, bytes, 3, 0x22 /* PRIVATE|ANONYMOUS */, -1, 0) : NULL;
    ok = ok && ((intptr_t)code > 0 || (intptr_t)code < -4095) && ls_read(fd, code, bytes) == (long)bytes;
    if (ok) {
      filters[i] = (struct filter){code, handed.lengths[i]};
      ls_private_note(code, bytes);
    }
  }
  ls_close(fd);
  if (ok) {
    unseen = handed.unseen;
    filter_count = handed.count;
    take_effect();
  }
  return ok;
}

/* The file's text, with a zero at its end. */
static size_t read_text(const char *path, char *out, size_t room) {
  int fd = ls_open(path, 02000000, 0);
  size_t n = 0;
  long got;
  if (fd < 0)
    return 0;
  while (n + 1 < room && (got = ls_read(fd, out + n, room - 1 - n)) > 0)
    n += (size_t)got;
  ls_close(fd);
  out[n] = 0;
  return n;
}

/* The number behind a word at the beginning of a line; -1: no such line. */
static long number_after(const char *text, const char *word) {
  for (const char *line = text; *line;) {
    const char *c = line, *w = word;
    while (*w && *c == *w)
      c++, w++;
    if (!*w) {
      while (*c == ' ' || *c == '\t')
        c++;
      long value = 0;
      for (; *c >= '0' && *c <= '9'; c++)
        value = value * 10 + *c - '0';
      return value;
    }
    while (*line && *line++ != '\n')
      ;
  }
  return -1;
}

static uint32_t inherited;
static int own_pid;

/* Container runtimes put one filter on all they start, and theirs answers what it does not
 * allow with an error number: that is so of the profiles that Docker, podman, containerd and
 * CRI-O come with. Such a process has its root on an overlay file system. */
static bool is_in_container(void) {
  static char text[4096];
  read_text("/proc/self/mountinfo", text, sizeof text);
  for (const char *line = text; *line;) {
    const char *end = line, *field = line;
    while (*end && *end != '\n')
      end++;
    for (int spaces = 0; field < end && spaces < 4; field++)
      spaces += *field == ' ';
    if (end - field > 2 && field[0] == '/' && field[1] == ' ')
      for (const char *c = field; c + 11 <= end; c++)
        if (!memcmp(c, " - overlay ", 11))
          return true;
    line = *end ? end + 1 : end;
  }
  return false;
}

/* The calls that the loader and the C library have just made, whatever the program. */
static long start_up_call(long number, const long arguments[6]) {
  switch (number) {
  case LS_NR_openat:
  case LS_NR_read:
  case LS_NR_pread64:
  case LS_NR_close:
  case LS_NR_newfstatat:
  case LS_NR_fstat:
  case LS_NR_mmap:
  case LS_NR_munmap:
    return ls_call_at_known_address(number, arguments[0], arguments[1], arguments[2], arguments[3],
                                    arguments[4], arguments[5]);
  }
  return -LS_ERR_NOSYS;
}

bool ls_seal_begin(void) {
  static char text[4096];
  static uint32_t begun;
  if (__atomic_exchange_n(&begun, 1, __ATOMIC_ACQ_REL))
    return !(nothing && for_ever);
  ls_sealed_call = start_up_call;
  if (read_text("/proc/self/status", text, sizeof text) && number_after(text, "Seccomp:") == 2) {
    long count = number_after(text, "Seccomp_filters:"); /* Linux 5.9 */
    inherited = count > 0 ? (uint32_t)count : 1;
    own_pid = (int)number_after(text, "Pid:");
    own_uid = (uint32_t)number_after(text, "Uid:");
    ls_config_read();
    unseen = inherited;
    if (ls_config.enabled && ls_config.dir[0] && own_pid > 0 && take_over(own_pid, inherited))
      return true;
    bool known = ls_config.filters == LS_FILTERS_UNKNOWN ? inherited == 1 && is_in_container()
                                                         : inherited == ls_config.filters;
    if (!known) {
      nothing = for_ever = true;
      take_effect();
      return false;
    }
  }
  ls_sealed_call = NULL;
  return true;
}

/* ---- as the program installs them ---- */

#define PR_SET_TSC 26
#define PR_SET_NO_NEW_PRIVS 38
#define PR_SET_SECCOMP 22

bool ls_seal_announce(const void *program) {
  struct program given;
  if (for_ever || !copy_in(&given, program, sizeof given) || !given.length || given.length > MAX_INSTRUCTIONS)
    return false; /* nothing to learn, or the kernel refuses it */
  size_t bytes = given.length * sizeof *given.code;
  begin_change();
  if (!filter_count) {
    /* What was feared has not come before: calls are free once more. */
    nothing = false;
    take_effect();
  }
  struct instruction *code = filter_count < MAX_FILTERS ? ls_private(bytes) : NULL;
  if (!code) {
    nothing = true;
    get_ready();
    take_effect();
    ls_unlock(&change);
    return false;
  }
  if (!copy_in(code, given.code, bytes)) {
    ls_unlock(&change);
    return false;
  }
  filters[filter_count++] = (struct filter){code, given.length};
  ls_seal_hand_over();
  if (ls_live->phase == LS_PHASE_RUNNING && !ls_process_is_ours()) {
    filter_count--; /* a vfork child's own affair */
    ls_unlock(&change);
    return false;
  }
  get_ready();
  take_effect();
  return true;
}

void ls_seal_settle(bool installed) {
  if (!installed) {
    filter_count--;
    take_effect();
    if (!ls_is_sealed() && ls_live->phase == LS_PHASE_RUNNING)
      ls_farewell_install();
  }
  ls_unlock(&change);
}

void ls_seal_deny_all(bool is_strict) {
  if (is_strict)
    ls_no_cycle_counter = 1; /* the kernel takes it away */
  else if (filter_count || nothing || (ls_live->phase == LS_PHASE_RUNNING && !ls_process_is_ours()))
    return;
  begin_change();
  nothing = true;
  for_ever |= is_strict;
  get_ready();
  take_effect();
  ls_unlock(&change);
}
