// SPDX-License-Identifier: Apache-2.0
#include "loader.h"

#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define BATCH 1024

long bpf_call(int command, union bpf_attr *attributes, size_t size) {
  return syscall(SYS_bpf, command, attributes, size);
}

static const Elf64_Shdr *section(const struct object *object, size_t number) {
  const Elf64_Ehdr *head = (const void *)object->image;
  if (number >= head->e_shnum)
    return NULL;
  const Elf64_Shdr *found =
      (const void *)(object->image + head->e_shoff + number * sizeof(Elf64_Shdr));
  if (found->sh_type != SHT_NOBITS &&
      (found->sh_offset > object->size || found->sh_size > object->size - found->sh_offset))
    return NULL;
  return found;
}

static const char *name_in(const struct object *object, size_t strings, size_t offset) {
  const Elf64_Shdr *table = section(object, strings);
  return table == NULL || offset >= table->sh_size ? "" : object->image + table->sh_offset + offset;
}

static const char *section_name(const struct object *object, const Elf64_Shdr *of) {
  const Elf64_Ehdr *head = (const void *)object->image;
  return name_in(object, head->e_shstrndx, of->sh_name);
}

static const Elf64_Shdr *named(const struct object *object, const char *name) {
  const Elf64_Ehdr *head = (const void *)object->image;
  for (size_t i = 1; i < head->e_shnum; i++) {
    const Elf64_Shdr *each = section(object, i);
    if (each != NULL && strcmp(section_name(object, each), name) == 0)
      return each;
  }
  return NULL;
}

int object_open(struct object *object, const void *image, size_t size) {
  memset(object, 0, sizeof *object);
  object->image = image;
  object->size = size;
  object->constants = -1;
  const Elf64_Ehdr *head = image;
  if (size < sizeof *head || memcmp(head->e_ident, ELFMAG, SELFMAG) != 0 ||
      head->e_machine != EM_BPF || head->e_shoff > size ||
      head->e_shnum > (size - head->e_shoff) / sizeof(Elf64_Shdr))
    return -1;
  const Elf64_Shdr *symbols = NULL, *maps = named(object, "maps");
  size_t maps_number = 0;
  for (size_t i = 1; i < head->e_shnum; i++) {
    const Elf64_Shdr *each = section(object, i);
    if (each == NULL)
      return -1;
    const char *name = section_name(object, each), *slash = strchr(name, '/');
    if (each->sh_type == SHT_SYMTAB)
      symbols = each;
    if (each == maps)
      maps_number = i;
    if (each->sh_type == SHT_PROGBITS && (each->sh_flags & SHF_EXECINSTR) && slash != NULL) {
      if (object->n_programs == MOST_PROGRAMS)
        return -1;
      object->programs[object->n_programs++] =
          (struct program){.kind = name, .kind_length = (size_t)(slash - name), .target = slash + 1,
                           .fd = -1, .link = -1};
    }
  }
  if (symbols == NULL || maps == NULL)
    return -1;
  for (size_t i = 0; i < symbols->sh_size / sizeof(Elf64_Sym); i++) {
    const Elf64_Sym *each = (const Elf64_Sym *)(const void *)(object->image + symbols->sh_offset) + i;
    if (each->st_shndx != maps_number || ELF64_ST_TYPE(each->st_info) != STT_OBJECT)
      continue;
    if (object->n_maps == MOST_MAPS || each->st_value > maps->sh_size ||
        maps->sh_size - each->st_value < sizeof(struct lsb_map))
      return -1;
    struct loaded_map *map = &object->maps[object->n_maps++];
    map->name = name_in(object, symbols->sh_link, each->st_name);
    map->fd = -1;
    memcpy(&map->is, object->image + maps->sh_offset + each->st_value, sizeof map->is);
  }
  return 0;
}

struct loaded_map *object_map(struct object *object, const char *name) {
  for (unsigned i = 0; i < object->n_maps; i++)
    if (strcmp(object->maps[i].name, name) == 0)
      return &object->maps[i];
  abort(); /* of our own object */
}

static int make_map(const char *name, const struct lsb_map *is) {
  union bpf_attr ask = {0};
  ask.map_type = is->type;
  ask.key_size = is->key_size;
  ask.value_size = is->value_size;
  ask.max_entries = is->max_entries;
  ask.map_flags = is->flags;
  strncpy(ask.map_name, name, sizeof ask.map_name - 1);
  return (int)bpf_call(BPF_MAP_CREATE, &ask, sizeof ask);
}

int map_update(int fd, const void *key, const void *value) {
  union bpf_attr ask = {0};
  ask.map_fd = (uint32_t)fd;
  ask.key = (uintptr_t)key;
  ask.value = (uintptr_t)value;
  return (int)bpf_call(BPF_MAP_UPDATE_ELEM, &ask, sizeof ask);
}

int map_lookup(int fd, const void *key, void *value) {
  union bpf_attr ask = {0};
  ask.map_fd = (uint32_t)fd;
  ask.key = (uintptr_t)key;
  ask.value = (uintptr_t)value;
  return (int)bpf_call(BPF_MAP_LOOKUP_ELEM, &ask, sizeof ask);
}

int object_make_maps(struct object *object, const void *constants, size_t size) {
  for (unsigned i = 0; i < object->n_maps; i++)
    if ((object->maps[i].fd = make_map(object->maps[i].name, &object->maps[i].is)) < 0)
      return -1;
  const Elf64_Shdr *rodata = named(object, ".rodata");
  if (rodata == NULL || rodata->sh_size < size) {
    errno = EINVAL;
    return -1;
  }
  char *data = malloc(rodata->sh_size);
  if (data == NULL)
    return -1;
  memcpy(data, object->image + rodata->sh_offset, rodata->sh_size);
  memcpy(data, constants, size); /* `config` is the only object in it, a test checks that */
  struct lsb_map is = {BPF_MAP_TYPE_ARRAY, 4, (uint32_t)rodata->sh_size, 1, BPF_F_RDONLY_PROG};
  uint32_t zero = 0;
  object->constants = make_map("constants", &is);
  int bad = object->constants < 0 || map_update(object->constants, &zero, data) != 0;
  free(data);
  union bpf_attr ask = {0};
  ask.map_fd = (uint32_t)object->constants;
  return bad || bpf_call(BPF_MAP_FREEZE, &ask, sizeof ask) != 0 ? -1 : 0;
}

/* Puts the descriptors of maps into the instructions. */
static int relocate(const struct object *object, const Elf64_Shdr *code, size_t code_number,
                    struct bpf_insn *instructions) {
  const Elf64_Ehdr *head = (const void *)object->image;
  for (size_t i = 1; i < head->e_shnum; i++) {
    const Elf64_Shdr *table = section(object, i);
    if (table == NULL || table->sh_type != SHT_REL || table->sh_info != code_number)
      continue;
    const Elf64_Shdr *symbols = section(object, table->sh_link);
    for (size_t j = 0; j < table->sh_size / sizeof(Elf64_Rel); j++) {
      const Elf64_Rel *each = (const Elf64_Rel *)(const void *)(object->image + table->sh_offset) + j;
      size_t number = ELF64_R_SYM(each->r_info), at = each->r_offset / sizeof(struct bpf_insn);
      if (symbols == NULL || number >= symbols->sh_size / sizeof(Elf64_Sym) ||
          at + 1 >= code->sh_size / sizeof(struct bpf_insn))
        return -1;
      const Elf64_Sym *symbol =
          (const Elf64_Sym *)(const void *)(object->image + symbols->sh_offset) + number;
      const Elf64_Shdr *in = section(object, symbol->st_shndx);
      if (in == NULL)
        return -1;
      if (strcmp(section_name(object, in), ".rodata") == 0) {
        instructions[at].src_reg = BPF_PSEUDO_MAP_VALUE;
        instructions[at + 1].imm = instructions[at].imm + (int32_t)symbol->st_value;
        instructions[at].imm = object->constants;
        continue;
      }
      const char *name = name_in(object, symbols->sh_link, symbol->st_name);
      instructions[at].src_reg = BPF_PSEUDO_MAP_FD;
      instructions[at].imm = -1;
      for (unsigned k = 0; k < object->n_maps; k++)
        if (strcmp(object->maps[k].name, name) == 0)
          instructions[at].imm = object->maps[k].fd;
      if (instructions[at].imm < 0)
        return -1;
    }
  }
  return 0;
}

int object_attach(struct object *object, struct program *program, const struct btf *btf) {
  const Elf64_Ehdr *head = (const void *)object->image;
  const Elf64_Shdr *code = named(object, program->kind);
  size_t number = (size_t)(code - (const Elf64_Shdr *)(const void *)(object->image + head->e_shoff));
  int fentry = program->kind_length == 6 && memcmp(program->kind, "fentry", 6) == 0;
  union bpf_attr ask = {0};
  object->log[0] = 0;
  struct bpf_insn *instructions = malloc(code->sh_size);
  if (instructions == NULL)
    return -1;
  memcpy(instructions, object->image + code->sh_offset, code->sh_size);
  if (relocate(object, code, number, instructions) != 0) {
    free(instructions);
    errno = EINVAL;
    return -1;
  }
  ask.prog_type = fentry ? BPF_PROG_TYPE_TRACING : BPF_PROG_TYPE_RAW_TRACEPOINT;
  ask.insn_cnt = (uint32_t)(code->sh_size / sizeof(struct bpf_insn));
  ask.insns = (uintptr_t)instructions;
  ask.license = (uintptr_t) "GPL";
  strncpy(ask.prog_name, program->target, sizeof ask.prog_name - 1);
  if (fentry) {
    ask.expected_attach_type = BPF_TRACE_FENTRY;
    ask.attach_btf_id = btf == NULL ? 0 : btf_find(btf, BTF_KIND_FUNC, program->target);
    if (ask.attach_btf_id == 0) {
      free(instructions);
      errno = ENOENT;
      return -1;
    }
  }
  program->fd = (int)bpf_call(BPF_PROG_LOAD, &ask, sizeof ask);
  if (program->fd < 0) { /* again, for the verifier's words */
    int why = errno;
    ask.log_buf = (uintptr_t)object->log;
    ask.log_size = sizeof object->log;
    ask.log_level = 1;
    program->fd = (int)bpf_call(BPF_PROG_LOAD, &ask, sizeof ask);
    if (program->fd < 0 && errno == ENOSPC)
      errno = why;
  }
  int why = errno;
  free(instructions);
  errno = why;
  if (program->fd < 0)
    return -1;
  union bpf_attr link = {0};
  if (!fentry)
    link.raw_tracepoint.name = (uintptr_t)program->target;
  link.raw_tracepoint.prog_fd = (uint32_t)program->fd;
  program->link = (int)bpf_call(BPF_RAW_TRACEPOINT_OPEN, &link, sizeof link);
  return program->link < 0 ? -1 : 0;
}

void object_detach(struct object *object) {
  for (unsigned i = 0; i < object->n_programs; i++) {
    if (object->programs[i].link >= 0)
      close(object->programs[i].link);
    object->programs[i].link = -1;
  }
}

/* Key by key, for kernels before 5.6. Stops at what changed under it. */
static int walk_slowly(const struct loaded_map *map,
                       int (*each)(void *, const void *, const void *, size_t), void *to) {
  char key[64], next[64], *value = malloc(map->is.value_size);
  int stopped = value == NULL ? -1 : 0;
  union bpf_attr ask = {0};
  ask.map_fd = (uint32_t)map->fd;
  ask.next_key = (uintptr_t)next;
  for (uint32_t i = 0; stopped == 0 && i < 2 * map->is.max_entries; i++) {
    if (bpf_call(BPF_MAP_GET_NEXT_KEY, &ask, sizeof ask) != 0)
      break;
    memcpy(key, next, map->is.key_size);
    ask.key = (uintptr_t)key;
    if (map_lookup(map->fd, key, value) == 0)
      stopped = each(to, key, value, 1);
  }
  free(value);
  return stopped;
}

int map_walk(const struct loaded_map *map,
             int (*each)(void *to, const void *keys, const void *values, size_t count), void *to) {
  uint32_t room = BATCH, cursor = 0, after = 0;
  int started = 0, stopped = 0;
  char *keys = malloc((size_t)room * map->is.key_size);
  char *values = malloc((size_t)room * map->is.value_size);
  while (keys != NULL && values != NULL) {
    union bpf_attr ask = {0};
    ask.batch.in_batch = started ? (uintptr_t)&cursor : 0;
    ask.batch.out_batch = (uintptr_t)&after;
    ask.batch.keys = (uintptr_t)keys;
    ask.batch.values = (uintptr_t)values;
    ask.batch.count = room;
    ask.batch.map_fd = (uint32_t)map->fd;
    long failed = bpf_call(BPF_MAP_LOOKUP_BATCH, &ask, sizeof ask);
    int why = failed ? errno : 0;
    if (why == ENOSPC && room < (1u << 20)) { /* a bucket with more than fits */
      room *= 2;
      free(keys);
      free(values);
      keys = malloc((size_t)room * map->is.key_size);
      values = malloc((size_t)room * map->is.value_size);
      continue;
    }
    if (why != 0 && why != ENOENT) {
      if (!started && why != EFAULT)
        stopped = walk_slowly(map, each, to);
      else
        stopped = -1;
      break;
    }
    if (ask.batch.count > 0)
      stopped = each(to, keys, values, ask.batch.count);
    if (stopped != 0 || why == ENOENT)
      break;
    cursor = after;
    started = 1;
  }
  if (keys == NULL || values == NULL)
    stopped = -1;
  free(keys);
  free(values);
  return stopped;
}
