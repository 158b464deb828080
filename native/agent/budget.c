// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * How much the recording may take: a share of what the program is allowed to have.
 *
 * Its pages are charged to the program's memory cgroup and lie in a file system that others
 * use. What limits the program is asked once, when it is loaded; the free space at each start
 * of a recording. Beyond the share nothing new is recorded, and that is counted.
 */
#include "budget.h"

#include "str.h"
#include "sys.h"

#define SHARE 8u       /* of a limit of memory or of address space */
#define CHILD_SHARE 8u /* of that, for each process forked from this one: they live together */
#define FREE_SHARE 4u  /* of the free space */
#define UNLIMITED (1ull << 62)

static uint64_t of_limits; /* bytes; 0: no limit. Copied by fork */

static uint64_t number_in(const char *path) {
  char text[32];
  int fd = ls_open(path, 02000000 /* O_CLOEXEC */, 0);
  if (fd < 0)
    return 0;
  long got = ls_read(fd, text, sizeof text);
  ls_close(fd);
  uint64_t value = 0;
  for (long i = 0; i < got && text[i] >= '0' && text[i] <= '9'; i++)
    value = value * 10 + (uint64_t)(text[i] - '0');
  return value < UNLIMITED ? value : 0; /* "max" is 0 too */
}

static size_t append(char *out, size_t at, size_t bytes, const char *text) {
  while (*text && at + 1 < bytes)
    out[at++] = *text++;
  out[at] = 0;
  return at;
}

static uint64_t lower(uint64_t one, uint64_t other) {
  return !one || (other && other < one) ? other : one;
}

/* The lowest limit of the cgroup and of those above it. */
static uint64_t limit_above(const char *root, const char *group, const char *file) {
  char path[600];
  size_t base = append(path, 0, sizeof path, root), end = append(path, base, sizeof path, group);
  uint64_t lowest = 0;
  for (;;) {
    append(path, end, sizeof path, file);
    lowest = lower(lowest, number_in(path));
    if (end <= base)
      return lowest;
    do
      end--;
    while (end > base && path[end] != '/');
  }
}

static bool has_word(const char *list, const char *end, const char *word) {
  for (const char *at = list; at < end; at++) {
    const char *w = word;
    while (at < end && *w && *at == *w)
      at++, w++;
    if (!*w && (at == end || *at == ','))
      return true;
    while (at < end && *at != ',')
      at++;
  }
  return false;
}

/* Of one line of /proc/self/cgroup: NUMBER:CONTROLLERS:PATH. */
static uint64_t limit_of_line(const char *line) {
  const char *list = line, *end;
  while (*list && *list != ':')
    list++;
  if (!*list)
    return 0;
  for (end = ++list; *end && *end != ':';)
    end++;
  if (!*end)
    return 0;
  if (list == end)
    return limit_above("/sys/fs/cgroup", end + 1, "/memory.max");
  if (has_word(list, end, "memory"))
    return limit_above("/sys/fs/cgroup/memory", end + 1, "/memory.limit_in_bytes");
  return 0;
}

static uint64_t cgroup_limit(void) {
  char text[2048], *line = text;
  int fd = ls_open("/proc/self/cgroup", 02000000 /* O_CLOEXEC */, 0);
  if (fd < 0)
    return 0;
  long got = ls_read(fd, text, sizeof text - 1);
  ls_close(fd);
  uint64_t lowest = 0;
  for (long i = 0; i < got; i++)
    if (text[i] == '\n') {
      text[i] = 0;
      lowest = lower(lowest, limit_of_line(line));
      line = text + i + 1;
    }
  return lowest;
}

void ls_budget_read(void) {
  struct ls_rlimit space;
  of_limits = cgroup_limit();
  if (ls_prlimit(0, 9 /* RLIMIT_AS */, NULL, &space) == 0 && space.current < UNLIMITED)
    of_limits = lower(of_limits, space.current);
  of_limits /= SHARE;
}

uint64_t ls_budget(int fd, bool forked) {
  uint64_t budget = forked ? of_limits / CHILD_SHARE : of_limits;
  struct ls_statfs system;
  if (ls_fstatfs(fd, &system) == 0 && system.blocks && system.block_bytes > 0)
    budget = lower(budget, system.available * (uint64_t)system.block_bytes / FREE_SHARE);
  return budget;
}
