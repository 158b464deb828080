// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * The recording's header, the list of modules and their names, wherever the memory for them comes
 * from: a file (recording_file.c), or what somebody handed over.
 */
#include "clock.h"
#include "config.h"
#include "counters.h"
#include "modules.h"
#include "private.h"
#include "process.h"
#include "real.h"
#include "recording.h"
#include "recording_file.h"
#include "space.h"
#include "str.h"
#include "sys.h"

#define PAGE 4096ull
#define ROUND_UP(x) (((x) + PAGE - 1) & ~(PAGE - 1))

static intptr_t module_bias[LSR_MAX_MODULES + 1];

intptr_t ls_module_bias(uint16_t index_plus_1) { return module_bias[index_plus_1]; }

static uint64_t reserve(struct lsr_area *area, uint64_t bytes, uint64_t offset) {
  area->offset = offset;
  area->reserved = ROUND_UP(bytes);
  area->used = 0;
  return offset + area->reserved;
}

uint64_t ls_recording_lay_out(struct lsr_header *header, unsigned shift) {
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

bool ls_recording_begin(struct ls_live *live, struct lsr_header *header, const struct lsr_header *plan) {
  memcpy(header, plan, offsetof(struct lsr_header, shards));
  header->version = LSR_VERSION;
  header->header_bytes = sizeof *header;
#ifdef __aarch64__
  header->arch = LSR_ARCH_AARCH64;
#else
  header->arch = LSR_ARCH_X86_64;
#endif
  header->mode = ls_config.sample_bytes ? LSR_MODE_SAMPLED : LSR_MODE_EXACT;
  header->sample_bytes = ls_config.sample_bytes;
  header->pid = (uint32_t)ls_getpid();
  header->ppid = (uint32_t)ls_getppid();
  header->uid = (uint32_t)ls_getuid();
  header->page_bytes = PAGE;
  header->min_size = ls_config.min_size;
  header->max_size = ls_config.max_size;
  header->max_depth = ls_config.depth;
  header->node_count = 1;
  header->site_count = 1;
  header->module_epoch = 1;
  header->tick_shift = LS_TICK_SHIFT;
  memcpy(header->allocator, ls_real.allocator_path, sizeof header->allocator);
  header->state = LSR_STATE_STARTING;

  live->header = live->entered = header;
  ls_private_tell(header);
  live->sampled = header->mode == LSR_MODE_SAMPLED;
  live->min_size = header->min_size;
  live->max_size = header->max_size ? header->max_size : UINT64_MAX;
  ls_clock_pair(header);
  live->clock_start = header->counter_start;
  live->stripes_backed = 1;
  if (!ls_area_grow(&header->modules, 1) || !ls_area_grow(&header->strings, 1) ||
      !ls_area_grow(&header->nodes, 1) || !ls_area_grow(&header->sites, 1)) {
    live->header = live->entered = NULL;
    return false;
  }
  return true;
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
