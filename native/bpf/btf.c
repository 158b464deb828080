// SPDX-License-Identifier: Apache-2.0
#include "btf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MOST_BYTES (256u << 20)
#define MOST_DEPTH 32

static char *whole(const char *path, size_t *size) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return NULL;
  size_t have = 0, room = 1 << 20;
  char *data = malloc(room);
  while (data != NULL) {
    if (have == room) {
      char *more = room >= MOST_BYTES ? NULL : realloc(data, room * 2);
      if (more == NULL) {
        free(data);
        data = NULL;
        errno = EFBIG;
        break;
      }
      data = more;
      room *= 2;
    }
    ssize_t got = read(fd, data + have, room - have);
    if (got < 0 && errno == EINTR)
      continue;
    if (got < 0) {
      free(data);
      data = NULL;
    }
    if (got <= 0)
      break;
    have += (size_t)got;
  }
  int why = errno;
  close(fd);
  errno = why;
  *size = have;
  return data;
}

/* Bytes that follow the head of a type; SIZE_MAX for a kind that we do not know. */
static size_t tail_of(const struct btf_type *type) {
  size_t members = BTF_INFO_VLEN(type->info);
  switch (BTF_INFO_KIND(type->info)) {
  case BTF_KIND_INT: return sizeof(uint32_t);
  case BTF_KIND_ARRAY: return sizeof(struct btf_array);
  case BTF_KIND_STRUCT:
  case BTF_KIND_UNION: return members * sizeof(struct btf_member);
  case BTF_KIND_ENUM: return members * sizeof(struct btf_enum);
  case BTF_KIND_FUNC_PROTO: return members * sizeof(struct btf_param);
  case BTF_KIND_VAR: return sizeof(struct btf_var);
  case BTF_KIND_DATASEC: return members * sizeof(struct btf_var_secinfo);
  case BTF_KIND_DECL_TAG: return sizeof(struct btf_decl_tag);
  case BTF_KIND_ENUM64: return members * 12;
  case BTF_KIND_PTR:
  case BTF_KIND_FWD:
  case BTF_KIND_TYPEDEF:
  case BTF_KIND_VOLATILE:
  case BTF_KIND_CONST:
  case BTF_KIND_RESTRICT:
  case BTF_KIND_FUNC:
  case BTF_KIND_FLOAT:
  case BTF_KIND_TYPE_TAG: return 0;
  default: return SIZE_MAX;
  }
}

struct btf *btf_read(const char *path) {
  struct btf *btf = calloc(1, sizeof *btf);
  if (btf == NULL || (btf->data = whole(path, &btf->size)) == NULL) {
    free(btf);
    return NULL;
  }
  const struct btf_header *head = (const void *)btf->data;
  if (btf->size < sizeof *head || head->magic != BTF_MAGIC || head->hdr_len > btf->size ||
      head->type_off > btf->size - head->hdr_len ||
      head->type_len > btf->size - head->hdr_len - head->type_off ||
      head->str_off > btf->size - head->hdr_len ||
      head->str_len > btf->size - head->hdr_len - head->str_off || head->str_len == 0)
    goto damaged;
  btf->strings = btf->data + head->hdr_len + head->str_off;
  btf->strings_size = head->str_len;
  if (btf->strings[btf->strings_size - 1] != 0)
    goto damaged;
  const char *start = btf->data + head->hdr_len + head->type_off, *end = start + head->type_len;
  size_t room = head->type_len / sizeof(struct btf_type) + 2;
  btf->at = calloc(room, sizeof *btf->at);
  if (btf->at == NULL)
    goto damaged;
  btf->types = 1;
  while ((size_t)(end - start) >= sizeof(struct btf_type)) {
    const struct btf_type *type = (const void *)start;
    size_t tail = tail_of(type);
    if (tail == SIZE_MAX || tail > (size_t)(end - start) - sizeof *type)
      break; /* of a newer kernel: what came before can be used */
    btf->at[btf->types++] = type;
    start += sizeof *type + tail;
  }
  return btf;
damaged:
  btf_free(btf);
  errno = EINVAL;
  return NULL;
}

void btf_free(struct btf *btf) {
  if (btf == NULL)
    return;
  free(btf->at);
  free(btf->data);
  free(btf);
}

static const struct btf_type *type_of(const struct btf *btf, uint32_t number) {
  return number > 0 && number < btf->types ? btf->at[number] : NULL;
}

static const char *text(const struct btf *btf, uint32_t offset) {
  return offset < btf->strings_size ? btf->strings + offset : "";
}

uint32_t btf_find(const struct btf *btf, uint32_t kind, const char *name) {
  for (uint32_t i = 1; i < btf->types; i++)
    if (BTF_INFO_KIND(btf->at[i]->info) == kind && strcmp(text(btf, btf->at[i]->name_off), name) == 0)
      return i;
  return 0;
}

/* Leaves out what does not change the layout; typedefs as well when `all`. */
static uint32_t bare(const struct btf *btf, uint32_t number, int all) {
  for (int i = 0; i < MOST_DEPTH; i++) {
    const struct btf_type *type = type_of(btf, number);
    if (type == NULL)
      return 0;
    switch (BTF_INFO_KIND(type->info)) {
    case BTF_KIND_TYPEDEF:
      if (!all)
        return number;
      break;
    case BTF_KIND_CONST:
    case BTF_KIND_VOLATILE:
    case BTF_KIND_RESTRICT:
    case BTF_KIND_TYPE_TAG: break;
    default: return number;
    }
    number = type->type;
  }
  return 0;
}

static int member_in(const struct btf *btf, uint32_t number, const char *name, size_t length,
                     uint32_t *type, int depth) {
  const struct btf_type *of = type_of(btf, bare(btf, number, 1));
  if (of == NULL || depth > 8)
    return -1;
  uint32_t kind = BTF_INFO_KIND(of->info);
  if (kind != BTF_KIND_STRUCT && kind != BTF_KIND_UNION)
    return -1;
  const struct btf_member *member = (const void *)(of + 1);
  for (uint32_t i = 0; i < BTF_INFO_VLEN(of->info); i++) {
    uint32_t bits = BTF_INFO_KFLAG(of->info) ? BTF_MEMBER_BIT_OFFSET(member[i].offset)
                                             : member[i].offset;
    const char *found = text(btf, member[i].name_off);
    if (*found == 0) { /* of an unnamed struct or union */
      int inside = member_in(btf, member[i].type, name, length, type, depth + 1);
      if (inside >= 0)
        return (int)(bits / 8) + inside;
    } else if (strlen(found) == length && memcmp(found, name, length) == 0) {
      *type = member[i].type;
      return (int)(bits / 8);
    }
  }
  return -1;
}

int btf_member(const struct btf *btf, const char *type_name, const char *member, uint32_t *type) {
  uint32_t number = btf_find(btf, BTF_KIND_STRUCT, type_name);
  int offset = 0;
  while (number != 0) {
    const char *dot = strchr(member, '.');
    size_t length = dot == NULL ? strlen(member) : (size_t)(dot - member);
    uint32_t inner = 0;
    int found = member_in(btf, number, member, length, &inner, 0);
    if (found < 0)
      return -1;
    offset += found;
    if (dot == NULL) {
      if (type != NULL)
        *type = inner;
      return offset;
    }
    member = dot + 1;
    number = inner;
  }
  return -1;
}

int64_t btf_enumerator(const struct btf *btf, const char *name) {
  for (uint32_t i = 1; i < btf->types; i++) {
    if (BTF_INFO_KIND(btf->at[i]->info) != BTF_KIND_ENUM)
      continue;
    const struct btf_enum *each = (const void *)(btf->at[i] + 1);
    for (uint32_t j = 0; j < BTF_INFO_VLEN(btf->at[i]->info); j++)
      if (strcmp(text(btf, each[j].name_off), name) == 0)
        return (uint32_t)each[j].val;
  }
  return -1;
}

const struct btf_type *btf_trace(const struct btf *btf, const char *event) {
  char name[128];
  snprintf(name, sizeof name, "btf_trace_%s", event);
  const struct btf_type *found = type_of(btf, btf_find(btf, BTF_KIND_TYPEDEF, name));
  const struct btf_type *pointer = found == NULL ? NULL : type_of(btf, bare(btf, found->type, 1));
  if (pointer == NULL || BTF_INFO_KIND(pointer->info) != BTF_KIND_PTR)
    return NULL;
  const struct btf_type *function = type_of(btf, bare(btf, pointer->type, 1));
  return function != NULL && BTF_INFO_KIND(function->info) == BTF_KIND_FUNC_PROTO ? function : NULL;
}

const char *btf_trace_parameter(const struct btf *btf, const struct btf_type *function,
                                unsigned number) {
  if (function == NULL || number + 1 >= BTF_INFO_VLEN(function->info))
    return NULL;
  const struct btf_param *parameter = (const struct btf_param *)(function + 1) + number + 1;
  const struct btf_type *type = type_of(btf, bare(btf, parameter->type, 0));
  if (type == NULL)
    return "i";
  if (BTF_INFO_KIND(type->info) == BTF_KIND_PTR) {
    const struct btf_type *to = type_of(btf, bare(btf, type->type, 1));
    if (to != NULL && BTF_INFO_KIND(to->info) == BTF_KIND_STRUCT)
      return text(btf, to->name_off);
    return "p";
  }
  return BTF_INFO_KIND(type->info) == BTF_KIND_TYPEDEF ? text(btf, type->name_off) : "i";
}
