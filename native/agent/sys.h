// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * System calls without libc, for x86-64 and aarch64. Every function returns what the
 * kernel returns: a negative error number on failure, errno untouched.
 */
#ifndef LEAKSCOPE_SYS_H
#define LEAKSCOPE_SYS_H

#include <stddef.h>
#include <stdint.h>

#if !defined(__x86_64__) && !defined(__aarch64__)
#error "leakscope's agent knows x86-64 and aarch64 only"
#endif

/* Where the C library's control block of the calling thread is, which begins with its own address. */
static inline __attribute__((always_inline)) uintptr_t ls_thread_pointer(void) {
  uintptr_t value;
#ifdef __x86_64__
  __asm__("mov %%fs:0, %0" : "=r"(value));
#else
  __asm__("mrs %0, tpidr_el0" : "=r"(value));
#endif
  return value;
}

#ifdef __x86_64__
enum {
  LS_NR_read = 0,
  LS_NR_write = 1,
  LS_NR_close = 3,
  LS_NR_fstat = 5,
  LS_NR_mmap = 9,
  LS_NR_mprotect = 10,
  LS_NR_munmap = 11,
  LS_NR_rt_sigaction = 13,
  LS_NR_rt_sigprocmask = 14,
  LS_NR_rt_sigreturn = 15,
  LS_NR_pread64 = 17,
  LS_NR_pwrite64 = 18,
  LS_NR_sched_yield = 24,
  LS_NR_mremap = 25,
  LS_NR_mincore = 27,
  LS_NR_madvise = 28,
  LS_NR_nanosleep = 35,
  LS_NR_getpid = 39,
  LS_NR_clone = 56,
  LS_NR_clone3 = 435,
  LS_NR_exit = 60,
  LS_NR_socket = 41,
  LS_NR_connect = 42,
  LS_NR_sendto = 44,
  LS_NR_getsockopt = 55,
  LS_NR_kill = 62,
  LS_NR_flock = 73,
  LS_NR_ftruncate = 77,
  LS_NR_getuid = 102,
  LS_NR_getgid = 104,
  LS_NR_geteuid = 107,
  LS_NR_getegid = 108,
  LS_NR_getppid = 110,
  LS_NR_rt_sigpending = 127,
  LS_NR_sigaltstack = 131,
  LS_NR_fstatfs = 138,
  LS_NR_munlock = 150,
  LS_NR_prctl = 157,
  LS_NR_gettid = 186,
  LS_NR_futex = 202,
  LS_NR_getdents64 = 217,
  LS_NR_timer_create = 222,
  LS_NR_timer_settime = 223,
  LS_NR_clock_gettime = 228,
  LS_NR_exit_group = 231,
  LS_NR_tgkill = 234,
  LS_NR_openat = 257,
  LS_NR_newfstatat = 262,
  LS_NR_unlinkat = 263,
  LS_NR_readlinkat = 267,
  LS_NR_ppoll = 271,
  LS_NR_fallocate = 285,
  LS_NR_unshare = 272,
  LS_NR_rt_tgsigqueueinfo = 297,
  LS_NR_prlimit64 = 302,
  LS_NR_pkey_mprotect = 329,
  LS_NR_process_vm_readv = 310,
  LS_NR_seccomp = 317,
  LS_NR_membarrier = 324,
  LS_NR_close_range = 436,
};

static inline long ls_free_syscall6(long number, long a, long b, long c, long d, long e, long f) {
  long result;
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  register long r9 __asm__("r9") = f;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return result;
}
#else
enum {
  LS_NR_flock = 32,
  LS_NR_unlinkat = 35,
  LS_NR_fstatfs = 44,
  LS_NR_ftruncate = 46,
  LS_NR_fallocate = 47,
  LS_NR_openat = 56,
  LS_NR_close = 57,
  LS_NR_getdents64 = 61,
  LS_NR_read = 63,
  LS_NR_write = 64,
  LS_NR_pread64 = 67,
  LS_NR_pwrite64 = 68,
  LS_NR_ppoll = 73,
  LS_NR_readlinkat = 78,
  LS_NR_newfstatat = 79,
  LS_NR_fstat = 80,
  LS_NR_exit_group = 94,
  LS_NR_exit = 93,
  LS_NR_unshare = 97,
  LS_NR_futex = 98,
  LS_NR_nanosleep = 101,
  LS_NR_timer_create = 107,
  LS_NR_timer_settime = 110,
  LS_NR_clock_gettime = 113,
  LS_NR_sched_yield = 124,
  LS_NR_kill = 129,
  LS_NR_tgkill = 131,
  LS_NR_sigaltstack = 132,
  LS_NR_rt_sigaction = 134,
  LS_NR_rt_sigprocmask = 135,
  LS_NR_rt_sigpending = 136,
  LS_NR_rt_sigreturn = 139,
  LS_NR_prctl = 167,
  LS_NR_getpid = 172,
  LS_NR_getppid = 173,
  LS_NR_getuid = 174,
  LS_NR_geteuid = 175,
  LS_NR_getgid = 176,
  LS_NR_getegid = 177,
  LS_NR_gettid = 178,
  LS_NR_socket = 198,
  LS_NR_connect = 203,
  LS_NR_sendto = 206,
  LS_NR_clone = 220,
  LS_NR_clone3 = 435,
  LS_NR_getsockopt = 209,
  LS_NR_munmap = 215,
  LS_NR_mremap = 216,
  LS_NR_mmap = 222,
  LS_NR_mprotect = 226,
  LS_NR_munlock = 229,
  LS_NR_mincore = 232,
  LS_NR_madvise = 233,
  LS_NR_rt_tgsigqueueinfo = 240,
  LS_NR_prlimit64 = 261,
  LS_NR_process_vm_readv = 270,
  LS_NR_seccomp = 277,
  LS_NR_membarrier = 283,
  LS_NR_pkey_mprotect = 288,
  LS_NR_close_range = 436,
};

static inline long ls_free_syscall6(long number, long a, long b, long c, long d, long e, long f) {
  register long x8 __asm__("x8") = number;
  register long x0 __asm__("x0") = a;
  register long x1 __asm__("x1") = b;
  register long x2 __asm__("x2") = c;
  register long x3 __asm__("x3") = d;
  register long x4 __asm__("x4") = e;
  register long x5 __asm__("x5") = f;
  __asm__ volatile("svc #0"
                   : "+r"(x0)
                   : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                   : "memory");
  return x0;
}
#endif

#pragma GCC visibility push(hidden)
/* Set where a system call filter may punish calls: makes those that it allows, and answers for
 * the others (seal.c). NULL: all are free. */
extern long (*ls_sealed_call)(long number, const long arguments[6]);
extern int ls_no_cycle_counter; /* reading it is punished as well */
#pragma GCC visibility pop

static inline int ls_is_sealed(void) {
  return __builtin_expect(__atomic_load_n(&ls_sealed_call, __ATOMIC_RELAXED) != NULL, 0);
}

#ifdef LS_CALLS_ARE_FREE /* not in a traced program */
#define ls_syscall6 ls_free_syscall6
#else
static inline long ls_syscall6(long number, long a, long b, long c, long d, long e, long f) {
  long (*sealed)(long, const long *) = __atomic_load_n(&ls_sealed_call, __ATOMIC_RELAXED);
  if (__builtin_expect(sealed != NULL, 0)) {
    const long arguments[6] = {a, b, c, d, e, f};
    return sealed(number, arguments);
  }
  return ls_free_syscall6(number, a, b, c, d, e, f);
}
#endif

#define LS_SYSCALL0(n) ls_syscall6(n, 0, 0, 0, 0, 0, 0)
#define LS_SYSCALL1(n, a) ls_syscall6(n, (long)(a), 0, 0, 0, 0, 0)
#define LS_SYSCALL2(n, a, b) ls_syscall6(n, (long)(a), (long)(b), 0, 0, 0, 0)
#define LS_SYSCALL3(n, a, b, c) ls_syscall6(n, (long)(a), (long)(b), (long)(c), 0, 0, 0)
#define LS_SYSCALL4(n, a, b, c, d) \
  ls_syscall6(n, (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)
#define LS_SYSCALL5(n, a, b, c, d, e) \
  ls_syscall6(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), 0)
#define LS_SYSCALL6(n, a, b, c, d, e, f) \
  ls_syscall6(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

#define LS_AT_FDCWD (-100)

struct ls_timespec {
  int64_t seconds;
  int64_t nanoseconds;
};

struct ls_iovec {
  void *base;
  size_t length;
};

struct ls_rlimit {
  uint64_t current;
  uint64_t maximum;
};

/* What we want to know of a file. */
struct ls_stat {
  uint64_t dev;
  uint64_t ino;
  uint64_t size; /* bytes */
  uint32_t uid;
  uint32_t mode; /* type and permission bits */
  int64_t mtime_ns;
  uint64_t stored; /* bytes without its holes */
};

/* The kernel's own struct sigaction, not libc's. */
struct ls_sigaction {
  void (*handler)(int);
  unsigned long flags;
  void (*restorer)(void);
  uint64_t mask;
};

static inline int ls_open(const char *path, int flags, int mode) {
  return (int)LS_SYSCALL4(LS_NR_openat, LS_AT_FDCWD, path, flags, mode);
}
static inline int ls_close(int fd) { return (int)LS_SYSCALL1(LS_NR_close, fd); }
static inline long ls_read(int fd, void *out, size_t bytes) {
  return LS_SYSCALL3(LS_NR_read, fd, out, bytes);
}
static inline long ls_write(int fd, const void *from, size_t bytes) {
  return LS_SYSCALL3(LS_NR_write, fd, from, bytes);
}
static inline long ls_pread(int fd, void *out, size_t bytes, int64_t offset) {
  return LS_SYSCALL4(LS_NR_pread64, fd, out, bytes, offset);
}
static inline long ls_pwrite(int fd, const void *from, size_t bytes, int64_t offset) {
  return LS_SYSCALL4(LS_NR_pwrite64, fd, from, bytes, offset);
}
/* An address, or a small negative error number as a pointer. */
static inline void *ls_mmap(void *address, size_t bytes, int protection, int flags, int fd,
                            int64_t offset) {
  return (void *)LS_SYSCALL6(LS_NR_mmap, address, bytes, protection, flags, fd, offset);
}
static inline int ls_munmap(void *address, size_t bytes) {
  return (int)LS_SYSCALL2(LS_NR_munmap, address, bytes);
}
static inline int ls_mprotect(void *address, size_t bytes, int protection) {
  return (int)LS_SYSCALL3(LS_NR_mprotect, address, bytes, protection);
}
/* Flags: 1 may move. `old_bytes` 0 makes another mapping of the same pages, and more of the file
 * that follow them. */
static inline void *ls_mremap(void *old, size_t old_bytes, size_t bytes, int flags) {
  return (void *)LS_SYSCALL5(LS_NR_mremap, old, old_bytes, bytes, flags, NULL);
}
static inline int ls_madvise(void *address, size_t bytes, int advice) {
  return (int)LS_SYSCALL3(LS_NR_madvise, address, bytes, advice);
}
static inline int ls_munlock(const void *address, size_t bytes) {
  return (int)LS_SYSCALL2(LS_NR_munlock, address, bytes);
}
static inline int ls_mincore(void *address, size_t bytes, uint8_t *ret) {
  return (int)LS_SYSCALL3(LS_NR_mincore, address, bytes, ret);
}
static inline int ls_ftruncate(int fd, int64_t bytes) {
  return (int)LS_SYSCALL2(LS_NR_ftruncate, fd, bytes);
}
static inline int ls_fallocate(int fd, int mode, int64_t offset, int64_t bytes) {
  return (int)LS_SYSCALL4(LS_NR_fallocate, fd, mode, offset, bytes);
}
static inline int ls_openat(int directory, const char *path, int flags, int mode) {
  return (int)LS_SYSCALL4(LS_NR_openat, directory, path, flags, mode);
}
static inline long ls_getdents64(int fd, void *out, size_t bytes) {
  return LS_SYSCALL3(LS_NR_getdents64, fd, out, bytes);
}
static inline int ls_flock(int fd, int operation) {
  return (int)LS_SYSCALL2(LS_NR_flock, fd, operation);
}
static inline int ls_unlinkat(int directory, const char *name) {
  return (int)LS_SYSCALL3(LS_NR_unlinkat, directory, name, 0);
}
static inline int ls_unlink(const char *path) {
  return (int)LS_SYSCALL3(LS_NR_unlinkat, LS_AT_FDCWD, path, 0);
}
/* Bytes written to `out`, which gets no terminating zero. */
static inline long ls_readlink(const char *path, char *out, size_t bytes) {
  return LS_SYSCALL4(LS_NR_readlinkat, LS_AT_FDCWD, path, out, bytes);
}

struct ls_kernel_stat {
#ifdef __x86_64__
  uint64_t dev, ino, nlink;
  uint32_t mode, uid, gid, pad;
  uint64_t rdev, size, blksize, blocks;
#else
  uint64_t dev, ino;
  uint32_t mode, nlink, uid, gid;
  uint64_t rdev, pad, size;
  uint32_t blksize, pad2;
  uint64_t blocks;
#endif
  int64_t atime, atime_ns, mtime, mtime_ns, ctime, ctime_ns;
  int64_t unused[3];
};
_Static_assert(sizeof(struct ls_kernel_stat) >= 128, "the kernel's struct stat");

static inline int ls_stat_result(int rc, const struct ls_kernel_stat *from, struct ls_stat *ret) {
  if (rc < 0)
    return rc;
  ret->dev = from->dev;
  ret->ino = from->ino;
  ret->size = from->size;
  ret->stored = (uint64_t)from->blocks * 512;
  ret->uid = from->uid;
  ret->mode = from->mode;
  ret->mtime_ns = from->mtime * 1000000000 + from->mtime_ns;
  return 0;
}
static inline int ls_fstat(int fd, struct ls_stat *ret) {
  struct ls_kernel_stat status;
  return ls_stat_result((int)LS_SYSCALL2(LS_NR_fstat, fd, &status), &status, ret);
}
static inline int ls_stat(const char *path, struct ls_stat *ret) {
  struct ls_kernel_stat status;
  return ls_stat_result((int)LS_SYSCALL4(LS_NR_newfstatat, LS_AT_FDCWD, path, &status, 0), &status,
                        ret);
}
/* `name` itself, even if it is a link. */
static inline int ls_lstat_at(int directory, const char *name, struct ls_stat *ret) {
  struct ls_kernel_stat status;
  return ls_stat_result(
      (int)LS_SYSCALL4(LS_NR_newfstatat, directory, name, &status, 0x100 /* NOFOLLOW */), &status,
      ret);
}

/* The kernel's struct statfs. */
struct ls_statfs {
  int64_t type, block_bytes;
  uint64_t blocks, free, available, files, files_free;
  int64_t more[9];
};
static inline int ls_fstatfs(int fd, struct ls_statfs *ret) {
  return (int)LS_SYSCALL2(LS_NR_fstatfs, fd, ret);
}

static inline int ls_getpid(void) { return (int)LS_SYSCALL0(LS_NR_getpid); }
static inline int ls_getppid(void) { return (int)LS_SYSCALL0(LS_NR_getppid); }
static inline int ls_gettid(void) { return (int)LS_SYSCALL0(LS_NR_gettid); }
static inline uint32_t ls_getuid(void) { return (uint32_t)LS_SYSCALL0(LS_NR_getuid); }
static inline uint32_t ls_geteuid(void) { return (uint32_t)LS_SYSCALL0(LS_NR_geteuid); }
static inline uint32_t ls_getgid(void) { return (uint32_t)LS_SYSCALL0(LS_NR_getgid); }
static inline uint32_t ls_getegid(void) { return (uint32_t)LS_SYSCALL0(LS_NR_getegid); }
static inline int ls_tgkill(int pid, int tid, int signal) {
  return (int)LS_SYSCALL3(LS_NR_tgkill, pid, tid, signal);
}
static inline int ls_clock_gettime(int clock, struct ls_timespec *ret) {
  return (int)LS_SYSCALL2(LS_NR_clock_gettime, clock, ret);
}
static inline int ls_nanosleep(const struct ls_timespec *time) {
  return (int)LS_SYSCALL2(LS_NR_nanosleep, time, 0);
}
static inline int ls_sched_yield(void) { return (int)LS_SYSCALL0(LS_NR_sched_yield); }
static inline long ls_futex(uint32_t *word, int operation, uint32_t value,
                            const struct ls_timespec *timeout) {
  return LS_SYSCALL6(LS_NR_futex, word, operation, value, timeout, 0, 0);
}
static inline long ls_process_vm_readv(int pid, const struct ls_iovec *local, size_t locals,
                                       const struct ls_iovec *remote, size_t remotes,
                                       unsigned long flags) {
  return LS_SYSCALL6(LS_NR_process_vm_readv, pid, local, locals, remote, remotes, flags);
}
static inline int ls_membarrier(int command) {
  return (int)LS_SYSCALL3(LS_NR_membarrier, command, 0, 0);
}
static inline int ls_prlimit(int pid, int resource, const struct ls_rlimit *set,
                             struct ls_rlimit *ret) {
  return (int)LS_SYSCALL4(LS_NR_prlimit64, pid, resource, set, ret);
}
static inline int ls_rt_sigprocmask(int how, const uint64_t *set, uint64_t *ret) {
  return (int)LS_SYSCALL4(LS_NR_rt_sigprocmask, how, set, ret, sizeof(uint64_t));
}
static inline int ls_rt_sigaction(int number, const struct ls_sigaction *set,
                                  struct ls_sigaction *ret) {
  return (int)LS_SYSCALL4(LS_NR_rt_sigaction, number, set, ret, sizeof(uint64_t));
}
static inline __attribute__((noreturn)) void ls_exit_group(int status) {
  for (;;) /* the program's own end, as it would have it */
    ls_free_syscall6(LS_NR_exit_group, status, 0, 0, 0, 0, 0);
}

/* Whether the 8 bytes at `address` can be read, asked of the kernel; no, where it may not be
 * asked. An invalid `how` is refused only after the set has been copied in, so nothing changes. */
static inline int ls_is_readable(const void *address) {
  return ls_rt_sigprocmask(-1, (const uint64_t *)address, NULL) == -22 /* EINVAL */;
}

/* A cheap clock: constant rate, same on all cores, no system call. 0 where it is forbidden. */
static inline uint64_t ls_counter(void) {
  if (__builtin_expect(ls_no_cycle_counter, 0))
    return 0;
#ifdef __x86_64__
  uint32_t low, high;
  __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
  return (uint64_t)high << 32 | low;
#else
  uint64_t value;
  __asm__ volatile("mrs %0, cntvct_el0" : "=r"(value));
  return value;
#endif
}

#pragma GCC visibility push(hidden)
/* sys.c: `handler` runs on the alternate stack if there is one; interrupted calls restart. */
int ls_signal_handler(int number, void (*handler)(int));
int ls_signal_action(int number, void (*handler)(int), unsigned long flags);
#pragma GCC visibility pop

#endif
