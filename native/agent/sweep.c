// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * A bound for the recordings in a directory that nobody harvests.
 *
 * One start of a recording in some dozens looks how many there are, and removes the oldest
 * of processes that have ended: never one of a living process, of another user or of another
 * pid namespace, and what it removed is added up in a file beside them. A lock on that file
 * lets one process at a time do so; nobody waits for it.
 */
#include "budget.h"
#include "clock.h"
#include "config.h"
#include "str.h"
#include "sweep.h"
#include "sys.h"

enum {
  LS_O_RDWR = 02,
  LS_O_CREAT = 0100,
  LS_O_CLOEXEC = 02000000,
#ifdef __aarch64__
  LS_O_DIRECTORY = 040000,
  LS_O_NOFOLLOW = 0100000,
#else
  LS_O_DIRECTORY = 0200000,
  LS_O_NOFOLLOW = 0400000,
#endif
  LS_ERR_SRCH = 3,
  LOCK_NOW = 2 | 4, /* LOCK_EX | LOCK_NB */
};

#define ONE_IN 64u      /* starts that look */
#define AT_ONCE 192u    /* removed by one of them */
#define ALWAYS_KEPT 8u  /* whatever they take */

struct candidate {
  int64_t mtime_ns;
  uint64_t stored;
  uint32_t pid;
  char name[24];
};

/* Not on the stack; one thread starts a process. */
static struct candidate oldest[AT_ONCE];
static uint32_t count;
static uint64_t recordings, stored;

uint64_t ls_pid_namespace(void) {
  struct ls_stat status;
  return ls_stat("/proc/self/ns/pid", &status) == 0 ? status.ino : 0;
}

/* PID.SEQUENCE.live: the pid; else 0. */
static uint32_t pid_of(const char *name) {
  uint64_t pid = 0;
  const char *at = name;
  while (*at >= '0' && *at <= '9' && at < name + 10)
    pid = pid * 10 + (uint64_t)(*at++ - '0');
  if (at == name || *at++ != '.' || pid > INT32_MAX)
    return 0;
  const char *sequence = at;
  while (*at >= '0' && *at <= '9' && at < sequence + 5)
    at++;
  const char *end = ".live";
  while (*end && *at == *end)
    at++, end++;
  return at > sequence && !*end && !*at ? (uint32_t)pid : 0;
}

static void consider(int directory, const char *name) {
  struct ls_stat status;
  uint32_t pid = pid_of(name);
  if (!pid || ls_lstat_at(directory, name, &status) < 0 || (status.mode & 0170000) != 0100000 ||
      status.uid != ls_geteuid())
    return;
  recordings++;
  stored += status.stored;
  uint32_t place = count;
  while (place > 0 && oldest[place - 1].mtime_ns > status.mtime_ns)
    place--;
  if (place == AT_ONCE)
    return;
  uint32_t behind = (count == AT_ONCE ? count - 1 : count) - place;
  memmove(oldest + place + 1, oldest + place, behind * sizeof *oldest);
  struct candidate *fresh = &oldest[place];
  *fresh = (struct candidate){.mtime_ns = status.mtime_ns, .stored = status.stored, .pid = pid};
  for (size_t i = 0; name[i]; i++) /* shorter than its room: pid_of saw to that */
    fresh->name[i] = name[i];
  if (count < AT_ONCE)
    count++;
}

static void look(int directory) {
  static char entries[8192] __attribute__((aligned(8)));
  long got;
  count = 0;
  recordings = stored = 0;
  while ((got = ls_getdents64(directory, entries, sizeof entries)) > 0)
    for (long at = 0; at < got;) {
      const char *entry = entries + at; /* struct linux_dirent64 */
      uint16_t length;
      memcpy(&length, entry + 16, sizeof length);
      consider(directory, entry + 19);
      at += length;
    }
}

/* Whether nobody writes it any more. */
static bool has_ended(int directory, const struct candidate *candidate, uint64_t namespace) {
  struct {
    uint64_t magic;
    uint32_t version, header_bytes;
  } start;
  int fd = ls_openat(directory, candidate->name, LS_O_NOFOLLOW | LS_O_CLOEXEC, 0);
  if (fd < 0)
    return false;
  uint64_t whose = 0;
  uint32_t state = 0;
  bool known = ls_pread(fd, &start, sizeof start, 0) == sizeof start &&
               start.version == LSR_VERSION &&
               start.header_bytes == sizeof(struct lsr_header) &&
               ls_pread(fd, &whose, sizeof whose, offsetof(struct lsr_header, pid_namespace)) ==
                   sizeof whose &&
               ls_pread(fd, &state, sizeof state, offsetof(struct lsr_header, state)) == sizeof state;
  ls_close(fd);
  if (!known || whose != namespace)
    return false;
  return state == LSR_STATE_EXECED ||
         ls_tgkill((int)candidate->pid, (int)candidate->pid, 0) == -LS_ERR_SRCH;
}

/* The file in which the removed ones are counted, locked; negative when it is not to be had. */
static int open_count(int directory) {
  char name[24] = "removed.";
  size_t at = 8;
  uint32_t uid = ls_geteuid(), scale = 1;
  while (uid / scale > 9)
    scale *= 10;
  for (; scale; scale /= 10)
    name[at++] = (char)('0' + uid / scale % 10);
  struct ls_stat status;
  int fd = ls_openat(directory, name, LS_O_RDWR | LS_O_CREAT | LS_O_NOFOLLOW | LS_O_CLOEXEC, 0600);
  if (fd < 0)
    return fd;
  if (ls_fstat(fd, &status) == 0 && (status.mode & 0170000) == 0100000 &&
      status.uid == ls_geteuid() && ls_flock(fd, LOCK_NOW) == 0)
    return fd;
  ls_close(fd);
  return -1;
}

static void remove_oldest(int directory) {
  uint64_t namespace = ls_pid_namespace(), removed = 0, before = 0;
  int fd = namespace ? open_count(directory) : -1;
  if (fd < 0)
    return;
  for (uint32_t i = 0; i < count; i++) {
    bool many = recordings > ls_config.keep;
    if (!many && (stored <= ls_config.keep_bytes || recordings <= ALWAYS_KEPT))
      break;
    if (!has_ended(directory, &oldest[i], namespace) ||
        ls_unlinkat(directory, oldest[i].name) < 0)
      continue;
    removed++;
    recordings--;
    stored -= oldest[i].stored;
  }
  if (removed) {
    if (ls_pread(fd, &before, sizeof before, 0) != sizeof before)
      before = 0;
    before += removed;
    ls_pwrite(fd, &before, sizeof before, 0);
  }
  ls_close(fd);
}

void ls_sweep(void) {
  uint32_t keep = ls_config.keep, one_in = keep / 4 < ONE_IN ? keep / 4 + 1 : ONE_IN;
  uint64_t dice = (ls_clock_ns(LS_CLOCK_MONOTONIC) ^ (uint64_t)ls_getpid() << 32) *
                  0x9E3779B97F4A7C15ull;
  if (!keep || (dice >> 32) % one_in)
    return;
  int directory = ls_open(ls_config.dir, LS_O_DIRECTORY | LS_O_CLOEXEC, 0);
  if (directory < 0)
    return;
  look(directory);
  if (recordings > keep || (stored > ls_config.keep_bytes && recordings > ALWAYS_KEPT))
    remove_oldest(directory);
  ls_close(directory);
}
