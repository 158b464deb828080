/* SPDX-License-Identifier: Apache-2.0 */
/* The few helpers of the kernel that our BPF programs call, by number. */
#ifndef LEAKSCOPE_BPF_HELPERS_H
#define LEAKSCOPE_BPF_HELPERS_H

#include <linux/bpf.h>
#include "object.h"

#define SEC(name) __attribute__((section(name), used))
#undef __always_inline
#define __always_inline inline __attribute__((always_inline))

#define MAP(name, type_, key, value, most)                                                     \
  struct lsb_map SEC("maps") name = {type_, sizeof(key), sizeof(value), most, 0}

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static long (*bpf_map_update_elem)(void *map, const void *key, const void *value,
                                   __u64 flags) = (void *)BPF_FUNC_map_update_elem;
static long (*bpf_map_delete_elem)(void *map, const void *key) = (void *)BPF_FUNC_map_delete_elem;
static __u64 (*bpf_ktime_get_ns)(void) = (void *)BPF_FUNC_ktime_get_ns;
static __u32 (*bpf_get_prandom_u32)(void) = (void *)BPF_FUNC_get_prandom_u32;
static __u64 (*bpf_get_current_pid_tgid)(void) = (void *)BPF_FUNC_get_current_pid_tgid;
static __u64 (*bpf_get_current_task)(void) = (void *)BPF_FUNC_get_current_task;
static long (*bpf_get_current_comm)(void *to, __u32 size) = (void *)BPF_FUNC_get_current_comm;
static long (*bpf_get_stack)(void *ctx, void *to, __u32 size,
                             __u64 flags) = (void *)BPF_FUNC_get_stack;
static long (*bpf_probe_read_kernel)(void *to, __u32 size,
                                     const void *from) = (void *)BPF_FUNC_probe_read_kernel;
static long (*bpf_probe_read_kernel_str)(void *to, __u32 size,
                                         const void *from) = (void *)BPF_FUNC_probe_read_kernel_str;
static long (*bpf_get_ns_current_pid_tgid)(__u64 dev, __u64 ino, struct bpf_pidns_info *to,
                                           __u32 size) = (void *)BPF_FUNC_get_ns_current_pid_tgid;

static long (*bpf_get_func_arg)(void *ctx, __u32 n, __u64 *value) = (void *)BPF_FUNC_get_func_arg;

/* Whether a word of kernel memory could be read. */
#define READ(to, from) (bpf_probe_read_kernel(&(to), sizeof(to), (void *)(from)) == 0)

/* Arguments of a raw tracepoint. The verifier wants the distance in the instruction, so the
 * compiler must not compute it. */
#define ARG(ctx, n)                                                                            \
  ({                                                                                           \
    __u64 value_;                                                                              \
    asm volatile("%0 = *(u64 *)(%1 + %2)" : "=r"(value_) : "r"(ctx), "i"(8 * (n)));            \
    value_;                                                                                    \
  })

/* The same where the position is a constant of the loader: the verifier knows it, and sees one
 * branch only. 0 for an argument that there is not. */
static __always_inline __u64 argument(void *ctx, __u32 n) {
  switch (n) {
  case 0: return ARG(ctx, 0);
  case 1: return ARG(ctx, 1);
  case 2: return ARG(ctx, 2);
  case 3: return ARG(ctx, 3);
  case 4: return ARG(ctx, 4);
  case 5: return ARG(ctx, 5);
  case 6: return ARG(ctx, 6);
  case 7: return ARG(ctx, 7);
  case 8: return ARG(ctx, 8);
  case 9: return ARG(ctx, 9);
  default: return 0;
  }
}

#endif
