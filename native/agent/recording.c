// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * The recording's file: its creation, the list of modules and their names.
 *
 * The descriptor is closed at once: a program that closes all its descriptors cannot hurt us,
 * and we leak none.
 */
#include "apart.h"
#include "budget.h"
#include "clock.h"
#include "modules.h"
#include "space.h"
#include "str.h"
#include "sys.h"

#define PAGE 4096ull
#define ROUND_UP(x) (((x) + PAGE - 1) & ~(PAGE - 1))

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
static intptr_t module_bias[LSR_MAX_MODULES + 1];

intptr_t ls_module_bias(uint16_t index_plus_1) { return module_bias[index_plus_1]; }

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

static uint64_t reserve(struct lsr_area *area, uint64_t bytes, uint64_t offset) {
  area->offset = offset;
  area->reserved = ROUND_UP(bytes);
  area->used = 0;
  return offset + area->reserved;
}

/* `shift` halves the tables until the file's length, nearly all of it a hole, is allowed. */
static uint64_t lay_out(struct lsr_header *header, unsigned shift) {
  uint64_t at = ROUND_UP(sizeof *header);
  uint64_t sites = LSR_MAX_SITES >> shift, chunks = LSR_MAX_CHUNKS >> shift;
  at = reserve(&header->stripes, LSR_STRIPES * LSR_STRIPE_HEAD_BYTES, at);
  at = reserve(&header->modules, LSR_MAX_MODULES * sizeof(struct lsr_module), at);
  at = reserve(&header->strings, LSR_STRINGS_BYTES, at);
  at = reserve(&header->nodes, ((uint64_t)LSR_MAX_NODES >> shift) * sizeof(struct lsr_node), at);
  at = reserve(&header->sites, sites * sizeof(struct lsr_site), at);
  at = reserve(&header->ranges, (LSR_MAX_RANGES >> shift) * sizeof(struct lsr_range), at);
  at = reserve(&header->chunks, chunks * sizeof(struct lsr_chunk), at);
  header->stripes.used = header->stripes.reserved;
  header->bump = at;
  return at + ((16ull << 30) >> shift);
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
    fd = ls_open(recording_path,
                 LS_O_RDWR | LS_O_CREAT | LS_O_EXCL | LS_O_NOFOLLOW | LS_O_CLOEXEC, 0600);
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
    bytes = lay_out(&plan, shift);
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
  memcpy(header, &plan, offsetof(struct lsr_header, shards));
  header->version = LSR_VERSION;
  header->header_bytes = sizeof *header;
#ifdef __aarch64__
  header->arch = LSR_ARCH_AARCH64;
#else
  header->arch = LSR_ARCH_X86_64;
#endif
  header->mode = ls_config.sample_bytes ? LSR_MODE_SAMPLED : LSR_MODE_EXACT;
  header->sample_bytes = ls_config.sample_bytes;
  header->pid = pid;
  header->ppid = (uint32_t)ls_getppid();
  header->uid = (uint32_t)ls_getuid();
  header->page_bytes = PAGE;
  header->min_size = ls_config.min_size;
  header->max_size = ls_config.max_size;
  header->max_depth = ls_config.depth;
  header->forked_from = forked_from;
  header->exec_sequence = sequence;
  header->pid_namespace = ls_pid_namespace();
  header->node_count = 1;
  header->site_count = 1;
  header->module_epoch = 1;
  header->tick_shift = LS_TICK_SHIFT;
  static char exe[sizeof header->exe], boot_id[sizeof header->boot_id]; /* also of our forks */
  if (!exe[0] && ls_readlink("/proc/self/exe", exe, sizeof exe - 1) < 0)
    header->trouble |= LSR_TROUBLE_NO_PROC;
  if (!boot_id[0])
    read_small("/proc/sys/kernel/random/boot_id", boot_id, sizeof boot_id);
  memcpy(header->exe, exe, sizeof exe);
  memcpy(header->boot_id, boot_id, sizeof boot_id);
  memcpy(header->allocator, ls_real.allocator_path, sizeof header->allocator);
  header->state = LSR_STATE_STARTING;

  live->header = header;
  ls_private_tell(header);
  live->sampled = header->mode == LSR_MODE_SAMPLED;
  live->min_size = header->min_size;
  live->max_size = header->max_size ? header->max_size : UINT64_MAX;
  ls_clock_pair(header);
  live->clock_start = header->counter_start;
  live->stripes_backed = 1;
  if (!ls_area_grow(&header->modules, 1) || !ls_area_grow(&header->strings, 1) ||
      !ls_area_grow(&header->nodes, 1) || !ls_area_grow(&header->sites, 1)) {
    live->header = NULL;
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

uint16_t ls_recording_add_module(const struct ls_module_info *info) {
  struct ls_live *live = ls_live;
  struct lsr_header *header = live->header;
  if (!header)
    return 0;
  uint32_t index = header->module_count;
  if (index >= LSR_MAX_MODULES ||
      !ls_area_grow(&header->modules, (index + 1ull) * sizeof(struct lsr_module)) ||
      !ls_area_grow(&header->strings, header->string_bytes + info->path_bytes + 1)) {
    ls_count_drop_anywhere(LSR_DROP_MODULES_FULL);
    return 0;
  }
  struct lsr_module *module = live->modules + index;
  char *string = live->strings + header->string_bytes;
  memcpy(string, info->path, info->path_bytes);
  string[info->path_bytes] = 0;
  module->start = info->start;
  module->end = info->end;
  module->bias = (uint64_t)info->bias;
  module->path_offset = (uint32_t)header->string_bytes;
  module->path_bytes = (uint32_t)info->path_bytes;
  size_t id_bytes = info->build_id_bytes < sizeof module->build_id ? info->build_id_bytes
                                                                   : sizeof module->build_id;
  if (id_bytes)
    memcpy(module->build_id, info->build_id, id_bytes);
  module->build_id_bytes = (uint8_t)id_bytes;
  module->loaded_tick = ls_tick();
  header->string_bytes += info->path_bytes + 1;
  module_bias[index + 1] = (intptr_t)info->bias;
  __atomic_store_n(&header->module_count, index + 1, __ATOMIC_RELEASE);
  return (uint16_t)(index + 1);
}

void ls_recording_module_gone(uint16_t index_plus_1) {
  struct lsr_header *header = ls_live->header;
  if (!header || !index_plus_1 || index_plus_1 > header->module_count)
    return;
  struct lsr_module *module = ls_live->modules + (index_plus_1 - 1);
  uint32_t tick = ls_tick();
  module->gone_tick = tick ? tick : 1;
  header->module_epoch++;
}
