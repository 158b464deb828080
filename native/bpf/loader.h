/* SPDX-License-Identifier: Apache-2.0 */
/* Loads one of our own BPF objects: maps, constants, programs, each held by a descriptor only. */
#ifndef LEAKSCOPE_BPF_LOADER_H
#define LEAKSCOPE_BPF_LOADER_H

#include <linux/bpf.h>
#include <stddef.h>
#include <stdint.h>

#include "btf.h"
#include "object.h"

#define MOST_MAPS 16
#define MOST_PROGRAMS 32

struct loaded_map {
  const char *name;
  struct lsb_map is;
  int fd;
};

struct program {
  const char *kind, *target; /* of the section KIND/TARGET */
  size_t kind_length;
  int wanted, fd, link, why; /* `why` is the errno of what failed */
};

struct object {
  const char *image;
  size_t size;
  struct loaded_map maps[MOST_MAPS];
  unsigned n_maps;
  struct program programs[MOST_PROGRAMS];
  unsigned n_programs;
  int constants; /* the map of .rodata */
  char log[65536];
};

/* Finds maps and programs in the image, which must stay; 0, or -1 for one that is not ours. */
int object_open(struct object *object, const void *image, size_t size);
struct loaded_map *object_map(struct object *object, const char *name);
/* Makes the maps, the first `size` bytes of .rodata from `constants`. -1 with errno set. */
int object_make_maps(struct object *object, const void *constants, size_t size);
/* Loads and attaches a program; -1 with errno set and the verifier's words in `log`. */
int object_attach(struct object *object, struct program *program, const struct btf *btf);
void object_detach(struct object *object);

long bpf_call(int command, union bpf_attr *attributes, size_t size);
int map_update(int fd, const void *key, const void *value);
int map_lookup(int fd, const void *key, void *value);

/* Calls `each` with every element of a hash map; stops when it returns not 0. */
int map_walk(const struct loaded_map *map,
             int (*each)(void *to, const void *keys, const void *values, size_t count), void *to);

#endif
