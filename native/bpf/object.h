/* SPDX-License-Identifier: Apache-2.0 */
/* How a BPF object of ours describes its maps, to the loader that is linked with it. */
#ifndef LEAKSCOPE_BPF_OBJECT_H
#define LEAKSCOPE_BPF_OBJECT_H

#include <linux/types.h>

struct lsb_map {
  __u32 type, key_size, value_size, max_entries, flags;
};

#endif
