/* SPDX-License-Identifier: Apache-2.0 */
/* What the running kernel says of its own types (BTF). */
#ifndef LEAKSCOPE_BPF_BTF_H
#define LEAKSCOPE_BPF_BTF_H

#include <linux/btf.h>
#include <stddef.h>
#include <stdint.h>

struct btf {
  char *data;
  size_t size;
  const char *strings;
  uint32_t strings_size;
  uint32_t types; /* numbers 1 .. types - 1 are valid */
  const struct btf_type **at;
};

/* Reads a BTF file; NULL with errno set when it cannot be read or is damaged. */
struct btf *btf_read(const char *path);
void btf_free(struct btf *btf);

/* The number of the type of a kind and name, 0 when there is none. */
uint32_t btf_find(const struct btf *btf, uint32_t kind, const char *name);

/* Byte offset of a member, dots lead into members ("self.parent"); -1 when there is none.
 * `type` is NULL or gets the member's type. */
int btf_member(const struct btf *btf, const char *type_name, const char *member, uint32_t *type);

/* The value of an enumerator of an enum of any name; -1 when there is none. */
int64_t btf_enumerator(const struct btf *btf, const char *name);

/* The prototype of a tracepoint, NULL when the kernel has none of this name. */
const struct btf_type *btf_trace(const struct btf *btf, const char *event);

/* What a parameter of a tracepoint is: "p" a pointer to anything unnamed, "i" an integer, or the
 * name of its typedef or of the struct it points to. Parameters begin with 0, the tracepoint's own
 * data left out. NULL behind the last one, and for no prototype. */
const char *btf_trace_parameter(const struct btf *btf, const struct btf_type *prototype,
                                unsigned number);

#endif
