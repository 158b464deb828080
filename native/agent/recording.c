// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * The recording's file: creation, address space, growth, modules and strings.
 *
 * The whole sparse file is mapped once with no access and opened up piece by piece
 * after the kernel has promised the pages, so a full disk is an error code and never
 * a SIGBUS in the host. The descriptor is closed at once: a program that closes all
 * its descriptors cannot hurt us, and we leak none.
 */
#include "clock.h"
#include "modules.h"
#include "seal.h"
#include "str.h"
#include "sys.h"

#define PAGE 4096ull
#define ROUND_UP(x) (((x) + PAGE - 1) & ~(PAGE - 1))

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_REMOVE
#define MADV_REMOVE 9
#endif
#ifndef MADV_DONTDUMP
#define MADV_DONTDUMP 16
#endif

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
  LS_ERR_INVAL = 22,
  LS_RLIMIT_FSIZE = 1,
  LS_RLIMIT_AS = 9,
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
  if (ls_pread(fd, &state, sizeof state, offsetof(struct lsr_header, state)) == sizeof state &&
      state == LSR_STATE_RUNNING) {
    state = LSR_STATE_EXECED;
    ls_pwrite(fd, &state, sizeof state, offsetof(struct lsr_header, state));
  }
  ls_close(fd);
}

const char *ls_recording_path(void) { return recording_path; }

/* What ls_recording_reserve() backed in advance. */
static struct {
  uint64_t begin, end;
} reserved[LSR_TIMELINE_ROWS + LSR_STRIPES + 8];
static uint32_t reserved_count;

static bool is_reserved(uint64_t begin, uint64_t end) {
  for (uint32_t i = 0; i < reserved_count; i++)
    if (begin >= reserved[i].begin && end <= reserved[i].end)
      return true;
  return false;
}

bool ls_recording_back(uint64_t offset, uint64_t bytes) {
  if (reserved_count && is_reserved(offset, offset + bytes))
    return true;
  uint8_t *base = ls_live->base;
  uint64_t begin = offset & ~(PAGE - 1), end = ROUND_UP(offset + bytes);
  if (ls_mprotect(base + begin, end - begin, 3 /* READ|WRITE */) < 0)
    return false;
  long rc = ls_madvise(base + begin, end - begin, MADV_POPULATE_WRITE);
  if (rc == 0)
    return true;
  if (rc != -LS_ERR_INVAL)
    return false;
  /* Kernel before 5.14: reserve through the file, if it can still be reached and is ours. */
  int fd = ls_open(recording_path, LS_O_RDWR | LS_O_NOFOLLOW | LS_O_CLOEXEC, 0);
  if (fd < 0)
    return false;
  struct ls_stat now;
  bool ok = ls_fstat(fd, &now) == 0 && now.ino == recording_identity.ino &&
            now.dev == recording_identity.dev &&
            ls_fallocate(fd, 0, (int64_t)begin, (int64_t)(end - begin)) == 0;
  ls_close(fd);
  return ok;
}

bool ls_area_grow(struct lsr_area *area, uint64_t needed) {
  if (LS_LIKELY(needed <= __atomic_load_n(&area->used, __ATOMIC_ACQUIRE)))
    return true;
  if (needed > area->reserved)
    return false;
  ls_lock(&ls_live->grow_lock);
  bool ok = true;
  if (needed > area->used) {
    uint64_t target = area->used + area->used / 2;
    if (target < needed)
      target = needed;
    target = ROUND_UP(target + 16384);
    if (target > area->reserved)
      target = area->reserved;
    ok = ls_recording_back(area->offset + area->used, target - area->used);
    if (ok)
      __atomic_store_n(&area->used, target, __ATOMIC_RELEASE);
  }
  ls_unlock(&ls_live->grow_lock);
  if (!ok)
    ls_count_drop_anywhere(LSR_DROP_NO_SPACE);
  return ok;
}

uint8_t *ls_heap_take(uint64_t bytes, uint64_t *ret_offset) {
  struct lsr_header *header = ls_live->header;
  bytes = ROUND_UP(bytes);
  ls_lock(&ls_live->grow_lock);
  uint64_t offset = header->bump;
  bool ok = bytes <= header->file_bytes && offset <= header->file_bytes - bytes &&
            ls_recording_back(offset, bytes);
  if (ok)
    header->bump = offset + bytes;
  ls_unlock(&ls_live->grow_lock);
  if (!ok) {
    ls_count_drop_anywhere(LSR_DROP_NO_SPACE);
    return NULL;
  }
  *ret_offset = offset;
  return ls_live->base + offset;
}

/* So much comes on top of what there is, when no more can be had later. */
#define RESERVE_SITES 4096u
#define RESERVE_HEAP (6ull << 20)
#define RESERVE_ROW_SITES 2048u

static void back_now(uint64_t offset, uint64_t bytes) {
  uint64_t begin = offset & ~(PAGE - 1), end = ROUND_UP(offset + bytes);
  if (reserved_count < sizeof reserved / sizeof *reserved && ls_recording_back(begin, end - begin)) {
    reserved[reserved_count].begin = begin;
    reserved[reserved_count++].end = end;
  }
}

void ls_recording_reserve(void) {
  struct ls_live *live = ls_live;
  struct lsr_header *header = live->header;
  uint64_t sites = header->site_count;
  ls_area_grow(&header->sites, (sites + RESERVE_SITES) * sizeof(struct lsr_site));
  ls_area_grow(&header->nodes, (header->node_count + 4ull * RESERVE_SITES) * sizeof(struct lsr_node));
  ls_area_grow(&header->ranges, (header->range_slots + 1024ull) * sizeof(struct lsr_range));
  ls_lock(&live->grow_lock);
  back_now(header->bump, RESERVE_HEAP);
  for (uint32_t s = 0; s <= LSR_EXCLUSIVE_STRIPES; s++)
    back_now(header->counters.offset + s * header->stripe_bytes, LSR_STRIPE_HEAD_BYTES);
  back_now(header->counters.offset + LSR_EXCLUSIVE_STRIPES * header->stripe_bytes + LSR_STRIPE_HEAD_BYTES,
           (sites + RESERVE_SITES) * sizeof(struct lsr_counter));
  uint64_t entries = sites + RESERVE_ROW_SITES;
  if (entries > 4 * RESERVE_ROW_SITES)
    entries = 4 * RESERVE_ROW_SITES;
  for (uint32_t row = 0; row < LSR_TIMELINE_ROWS; row++)
    back_now(header->timeline.offset + row * header->timeline_row_bytes,
             entries * sizeof(struct lsr_timeline_entry));
  ls_unlock(&live->grow_lock);
}

void ls_heap_release(uint64_t offset, uint64_t bytes) {
  if ((offset | bytes) & (PAGE - 1))
    return;
  /* A hole in the file: the pages go back, the offsets are never used again. */
  ls_madvise(ls_live->base + offset, bytes, MADV_REMOVE);
}

static uint64_t reserve(struct lsr_header *header, struct lsr_area *area, uint64_t bytes,
                        uint64_t offset) {
  (void)header;
  area->offset = offset;
  area->reserved = ROUND_UP(bytes);
  area->used = 0;
  return offset + area->reserved;
}

/* `shift` halves the tables until the address space fits the host's limits. */
static uint64_t lay_out(struct lsr_header *header, unsigned shift) {
  uint64_t at = ROUND_UP(sizeof *header);
  uint64_t sites = LSR_MAX_SITES >> shift;
  at = reserve(header, &header->modules, LSR_MAX_MODULES * sizeof(struct lsr_module), at);
  at = reserve(header, &header->strings, LSR_STRINGS_BYTES, at);
  at = reserve(header, &header->nodes, ((uint64_t)LSR_MAX_NODES >> shift) * sizeof(struct lsr_node), at);
  at = reserve(header, &header->sites, sites * sizeof(struct lsr_site), at);
  at = reserve(header, &header->ranges, (LSR_MAX_RANGES >> shift) * sizeof(struct lsr_range), at);
  header->stripe_bytes = ROUND_UP(LSR_STRIPE_HEAD_BYTES + sites * sizeof(struct lsr_counter));
  at = reserve(header, &header->counters, LSR_STRIPES * header->stripe_bytes, at);
  header->timeline_row_bytes = ROUND_UP(sites * sizeof(struct lsr_timeline_entry));
  at = reserve(header, &header->timeline, LSR_TIMELINE_ROWS * header->timeline_row_bytes, at);
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
  for (; sequence < 10000; sequence++) {
    make_path(pid, sequence);
    fd = ls_open(recording_path,
                 LS_O_RDWR | LS_O_CREAT | LS_O_EXCL | LS_O_NOFOLLOW | LS_O_CLOEXEC, 0600);
    if (fd != -LS_ERR_EXIST)
      break;
  }
  if (fd < 0)
    return false;
  if (sequence > 0) {
    mark_replaced(pid, sequence - 1);
    make_path(pid, sequence);
  }
  if (ls_fstat(fd, &recording_identity) < 0)
    goto fail_close;

  uint64_t file_limit = limit_of(LS_RLIMIT_FSIZE);
  uint64_t space_limit = limit_of(LS_RLIMIT_AS);
  /* Not on the stack: 28 KB may be more than a small thread has. One thread starts a process. */
  static struct lsr_header plan;
  memset(&plan, 0, sizeof plan);
  uint8_t *base = NULL;
  uint64_t bytes = 0;
  for (unsigned shift = 0; shift <= 12; shift++) {
    bytes = lay_out(&plan, shift);
    /* Leave the host nearly all of a finite address space; never earn a SIGXFSZ. */
    if (bytes > file_limit || (space_limit != UINT64_MAX && bytes > space_limit / 16))
      continue;
    if (ls_ftruncate(fd, (int64_t)bytes) < 0)
      continue;
    base = ls_mmap(NULL, bytes, 0 /* PROT_NONE */, 1 /* MAP_SHARED */, fd, 0);
    if ((intptr_t)base > 0 || (intptr_t)base < -4095)
      break;
    base = NULL;
  }
  ls_close(fd);
  if (!base) {
    ls_unlink(recording_path);
    return false;
  }
  ls_madvise(base, bytes, MADV_DONTDUMP);
  live->base = base;
  reserved_count = 0;
  if (!ls_recording_back(0, sizeof(struct lsr_header))) {
    ls_munmap(base, bytes);
    ls_unlink(recording_path);
    live->base = NULL;
    return false;
  }

  struct lsr_header *header = (struct lsr_header *)base;
  *header = plan;
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
  header->file_bytes = bytes;
  header->min_size = ls_config.min_size;
  header->max_size = ls_config.max_size;
  header->max_depth = ls_config.depth;
  header->forked_from = forked_from;
  header->exec_sequence = sequence;
  header->node_count = 1;
  header->site_count = 1;
  header->module_epoch = 1;
  header->tick_shift = LS_TICK_SHIFT;
  long n = ls_readlink("/proc/self/exe", header->exe, sizeof header->exe - 1);
  if (n < 0)
    header->trouble |= LSR_TROUBLE_NO_PROC;
  memcpy(header->allocator, ls_real.allocator_path, sizeof header->allocator);
  read_small("/proc/sys/kernel/random/boot_id", header->boot_id, sizeof header->boot_id);
  header->state = LSR_STATE_STARTING;

  live->header = header;
  ls_private_tell(header);
  live->sampled = header->mode == LSR_MODE_SAMPLED;
  live->min_size = header->min_size;
  live->max_size = header->max_size ? header->max_size : UINT64_MAX;
  live->nodes = (struct lsr_node *)(base + header->nodes.offset);
  live->sites = (struct lsr_site *)(base + header->sites.offset);
  live->counters = base + header->counters.offset;
  ls_clock_pair(header);
  live->clock_start = header->counter_start;
  if (!ls_recording_back(header->counters.offset, PAGE) || /* stripe 0 counts drops from now on */
      !ls_area_grow(&header->modules, PAGE) || !ls_area_grow(&header->strings, PAGE) ||
      !ls_area_grow(&header->nodes, 1) || !ls_area_grow(&header->sites, 1)) {
    ls_munmap(base, bytes);
    ls_unlink(recording_path);
    live->base = NULL;
    live->header = NULL;
    return false;
  }
  return true;

fail_close:
  ls_close(fd);
  ls_unlink(recording_path);
  return false;
}

/* The program is about to limit its own address space: give back what we only reserved. */
void ls_recording_shrink_reserve(void) {
  struct ls_live *live = ls_live;
  struct lsr_header *header = live->header;
  if (!header)
    return;
  ls_lock(&live->grow_lock);
  struct lsr_area *areas[] = {&header->modules, &header->strings, &header->nodes, &header->sites,
                              &header->ranges};
  for (size_t i = 0; i < sizeof areas / sizeof *areas; i++) {
    struct lsr_area *area = areas[i];
    uint64_t keep = ROUND_UP(area->used * 2 + 65536);
    if (keep < area->reserved) {
      ls_munmap(live->base + area->offset + keep, area->reserved - keep);
      area->reserved = keep;
    }
  }
  uint64_t sites_max = header->sites.reserved / sizeof(struct lsr_site);
  uint64_t counter_keep = ROUND_UP(LSR_STRIPE_HEAD_BYTES + sites_max * sizeof(struct lsr_counter) + 65536);
  for (unsigned s = 0; s < LSR_STRIPES && counter_keep < header->stripe_bytes; s++)
    ls_munmap(live->base + header->counters.offset + s * header->stripe_bytes + counter_keep,
              header->stripe_bytes - counter_keep);
  uint64_t row_keep = ROUND_UP(sites_max * sizeof(struct lsr_timeline_entry));
  for (unsigned r = 0; r < LSR_TIMELINE_ROWS && row_keep < header->timeline_row_bytes; r++)
    ls_munmap(live->base + header->timeline.offset + r * header->timeline_row_bytes + row_keep,
              header->timeline_row_bytes - row_keep);
  uint64_t heap_keep = header->bump + ROUND_UP((header->bump - header->timeline.offset -
                                                header->timeline.reserved) * 4 + (16u << 20));
  if (heap_keep < header->file_bytes) {
    ls_munmap(live->base + heap_keep, header->file_bytes - heap_keep);
    header->file_bytes = heap_keep;
  }
  ls_unlock(&live->grow_lock);
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
  struct lsr_module *module = (struct lsr_module *)(live->base + header->modules.offset) + index;
  char *string = (char *)live->base + header->strings.offset + header->string_bytes;
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
  module->inode = info->inode;
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
  struct lsr_module *module =
      (struct lsr_module *)(ls_live->base + header->modules.offset) + (index_plus_1 - 1);
  uint32_t tick = ls_tick();
  module->gone_tick = tick ? tick : 1;
  header->module_epoch++;
}
