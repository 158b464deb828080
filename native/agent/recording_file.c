// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * The recording's file: its creation and its path.
 *
 * The descriptor is closed at once: a program that closes all its descriptors cannot hurt us,
 * and we leak none.
 */
#include "apart.h"
#include "budget.h"
#include "clock.h"
#include "config.h"
#include "process.h"
#include "recording.h"
#include "recording_file.h"
#include "space.h"
#include "str.h"
#include "sweep.h"
#include "sys.h"

enum {
  LS_O_RDWR = 02,
  LS_O_CREAT = 0100,
  LS_O_EXCL = 0200,
  LS_O_CLOEXEC = 02000000,
#ifdef __aarch64__
  LS_O_NOFOLLOW = 0100000,
#else
  LS_O_NOFOLLOW = 0400000,
#endif
  LS_ERR_EXIST = 17,
  LS_RLIMIT_FSIZE = 1,
};

static char recording_path[640];
static struct ls_stat recording_identity;

static size_t put_number(char *out, uint64_t value) {
  char digits[24];
  size_t n = 0;
  do
    digits[n++] = (char)('0' + value % 10);
  while (value /= 10);
  for (size_t i = 0; i < n; i++)
    out[i] = digits[n - 1 - i];
  return n;
}

static void make_path(uint32_t pid, uint32_t sequence) {
  size_t n = 0;
  while (ls_config.dir[n] && n < sizeof ls_config.dir - 1) {
    recording_path[n] = ls_config.dir[n];
    n++;
  }
  recording_path[n++] = '/';
  n += put_number(recording_path + n, pid);
  recording_path[n++] = '.';
  n += put_number(recording_path + n, sequence);
  memcpy(recording_path + n, ".live", 6);
}

/* exec replaced an earlier program of this pid: close its recording. */
static void mark_replaced(uint32_t pid, uint32_t sequence) {
  make_path(pid, sequence);
  int fd = ls_open(recording_path, LS_O_RDWR | LS_O_NOFOLLOW | LS_O_CLOEXEC, 0);
  if (fd < 0)
    return;
  uint32_t state = 0;
  uint64_t namespace = 0;
  ls_pread(fd, &namespace, sizeof namespace, offsetof(struct lsr_header, pid_namespace));
  if (namespace == ls_pid_namespace() && /* else another process of the same number */
      ls_pread(fd, &state, sizeof state, offsetof(struct lsr_header, state)) == sizeof state &&
      state == LSR_STATE_RUNNING) {
    state = LSR_STATE_EXECED;
    ls_pwrite(fd, &state, sizeof state, offsetof(struct lsr_header, state));
  }
  ls_close(fd);
}

const char *ls_recording_path(void) { return recording_path; }

/* A descriptor of the file, if it can still be reached and is ours; else negative. */
int ls_recording_open(void) {
  int fd = ls_open(recording_path, LS_O_RDWR | LS_O_NOFOLLOW | LS_O_CLOEXEC, 0);
  struct ls_stat now;
  if (fd >= 0 && (ls_fstat(fd, &now) < 0 || now.ino != recording_identity.ino ||
                  now.dev != recording_identity.dev)) {
    ls_close(fd);
    return -1;
  }
  return fd;
}

static void read_small(const char *path, char *out, size_t bytes) {
  int fd = ls_open(path, LS_O_CLOEXEC, 0);
  if (fd < 0)
    return;
  long n = ls_read(fd, out, bytes - 1);
  ls_close(fd);
  if (n < 0)
    n = 0;
  while (n > 0 && out[n - 1] == '\n')
    n--;
  out[n] = 0;
}

static uint64_t limit_of(int resource) {
  struct ls_rlimit limit;
  if (ls_prlimit(0, resource, NULL, &limit) < 0)
    return UINT64_MAX;
  return limit.current;
}

bool ls_recording_create(struct ls_live *live, uint32_t forked_from) {
  uint32_t pid = (uint32_t)ls_getpid();
  int fd = -1;
  uint32_t sequence = 0;
  ls_sweep();
  for (; sequence < 10000; sequence++) {
    make_path(pid, sequence);
    fd = ls_open(recording_path, LS_O_RDWR | LS_O_CREAT | LS_O_EXCL | LS_O_NOFOLLOW | LS_O_CLOEXEC,
                 0600);
    if (fd != -LS_ERR_EXIST)
      break;
  }
  if (fd < 0)
    return false;
  if (sequence > 0 && !forked_from) { /* else that pid was another's before */
    mark_replaced(pid, sequence - 1);
    make_path(pid, sequence);
  }
  if (ls_fstat(fd, &recording_identity) < 0)
    goto fail_close;

  uint64_t file_limit = limit_of(LS_RLIMIT_FSIZE);
  /* Not on the stack: 29 KB may be more than a small thread has. One thread starts a process. */
  static struct lsr_header plan;
  memset(&plan, 0, offsetof(struct lsr_header, shards)); /* the rest is zero in a new file */
  uint64_t bytes = 0;
  struct lsr_header *header = NULL;
  for (unsigned shift = 0; shift <= 12; shift++) {
    bytes = ls_recording_lay_out(&plan, shift);
    if (bytes > file_limit) /* never earn a SIGXFSZ */
      continue;
    if (ls_ftruncate(fd, (int64_t)bytes) == 0) {
      plan.file_bytes = bytes;
      header = ls_space_map(live, fd, &plan);
      break;
    }
  }
  plan.budget_bytes = ls_budget(fd, forked_from != 0);
  ls_close(fd);
  /* The head of stripe 0 lies behind the header: it counts drops from now on. */
  uint64_t first = plan.stripes.offset + LSR_STRIPE_HEAD_BYTES;
  if (!header || !ls_space_back(&plan, header, 0, first)) {
    ls_space_unmap();
    ls_unlink(recording_path);
    return false;
  }
  plan.forked_from = forked_from;
  header->exec_sequence = sequence;
  header->pid_namespace = ls_pid_namespace();
  static char exe[sizeof header->exe], boot_id[sizeof header->boot_id]; /* also of our forks */
  if (!exe[0] && ls_readlink("/proc/self/exe", exe, sizeof exe - 1) < 0)
    header->trouble |= LSR_TROUBLE_NO_PROC;
  if (!boot_id[0])
    read_small("/proc/sys/kernel/random/boot_id", boot_id, sizeof boot_id);
  memcpy(header->exe, exe, sizeof exe);
  memcpy(header->boot_id, boot_id, sizeof boot_id);
  if (!ls_recording_begin(live, header, &plan)) {
    ls_space_unmap();
    ls_unlink(recording_path);
    return false;
  }
  return true;

fail_close:
  ls_close(fd);
  ls_unlink(recording_path);
  return false;
}
