// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Walking the loader's list of objects.
 *
 * Source: the SVR4 debugger interface, <link.h> of glibc (whose r_debug has a successor for
 * each further namespace since version 2 of the interface) and musl.
 */
#include "loaded.h"

#include "loader.h"
#include "modules.h"
#include "peek.h"
#include "str.h"

#define MAX_NAMESPACES 64u

/* struct r_debug, and r_next of struct r_debug_extended. */
struct debug {
  int32_t version, pad;
  uintptr_t map, brk;
  int32_t state, pad2;
  uintptr_t loader, next;
};
enum { DEBUG_OLD_BYTES = offsetof(struct debug, next), DEBUG_EXTENDED = 2 };

/* Where the loader says it: glibc's variable, musl's pointer to one. */
extern struct debug _r_debug __attribute__((weak, visibility("default")));
extern struct debug *_dl_debug_addr __attribute__((weak, visibility("default")));

uintptr_t ls_main_program;
const char *ls_main_path;
static uintptr_t handed_over;        /* its struct r_debug */
static const Elf64_Dyn *debug_entry; /* DT_DEBUG of the main program; filled in by the loader */

static int take_main_program(struct dl_info *info, size_t bytes, void *context) {
  (void)bytes, (void)context;
  uintptr_t low = UINTPTR_MAX;
  for (unsigned i = 0; i < info->header_count; i++) {
    const Elf64_Phdr *ph = &info->headers[i];
    if (ph->p_type == PT_LOAD && ph->p_vaddr < low)
      low = ph->p_vaddr;
    if (ph->p_type != PT_DYNAMIC)
      continue;
    const Elf64_Dyn *dynamic = (const Elf64_Dyn *)(info->bias + ph->p_vaddr);
    for (size_t d = 0; d < ph->p_memsz / sizeof *dynamic && dynamic[d].d_tag != DT_NULL; d++)
      if (dynamic[d].d_tag == DT_DEBUG)
        debug_entry = &dynamic[d];
  }
  if (low != UINTPTR_MAX)
    ls_main_program = (info->bias + low) & ~(uintptr_t)4095;
  return 1; /* the first is all */
}

void ls_loaded_find(void) {
  if (!ls_main_program && dl_iterate_phdr)
    dl_iterate_phdr(take_main_program, NULL);
}

void ls_loaded_adopt(uintptr_t main_program, uintptr_t debug, const char *main_path) {
  ls_main_program = main_program;
  ls_main_path = main_path;
  handed_over = debug;
}

static uintptr_t first_debug(void) {
  uintptr_t at = debug_entry ? debug_entry->d_un.d_ptr : handed_over;
  if (!at && &_r_debug)
    at = (uintptr_t)&_r_debug;
  if (!at && &_dl_debug_addr)
    at = (uintptr_t)_dl_debug_addr;
  return at;
}

/* A namespace's list; false: none is there, or not yet. */
static bool read_debug(uintptr_t at, struct debug *ret) {
  memset(ret, 0, sizeof *ret);
  if (!at || !ls_peek(ret, at, DEBUG_OLD_BYTES))
    return false;
  if (ret->version >= DEBUG_EXTENDED && !ls_peek(ret, at, sizeof *ret))
    ret->next = 0;
  return ret->map != 0;
}

/* Entries are read ahead in the order in which the last reading met them. */
struct ahead {
  const struct ls_loaded_list *known;
  uint32_t next; /* of known: expected next */
  uint32_t first, count;
  struct ls_link link[LS_PEEK_MANY];
};

static bool fetch(struct ahead *ahead, uintptr_t at, struct ls_link *ret) {
  const struct ls_loaded_list *known = ahead->known;
  if (ahead->next >= known->count || known->entry[ahead->next].at != at)
    return ls_peek(ret, at, sizeof *ret);
  if (ahead->next - ahead->first >= ahead->count) {
    uintptr_t from[LS_PEEK_MANY];
    uint32_t n = 0;
    for (; n < LS_PEEK_MANY && ahead->next + n < known->count; n++)
      from[n] = known->entry[ahead->next + n].at;
    ahead->first = ahead->next;
    ahead->count = (uint32_t)ls_peek_many(ahead->link, sizeof *ahead->link, from, sizeof *ret, n);
    if (!ahead->count)
      return false;
  }
  *ret = ahead->link[ahead->next - ahead->first];
  return true;
}

static bool same(const struct ls_link *a, const struct ls_link *b) {
  return a->bias == b->bias && a->name == b->name && a->dynamic == b->dynamic;
}

/* The entry of the last reading for the same object, NULL: it is new. */
static const struct ls_loaded *recognise(struct ahead *ahead, uintptr_t at,
                                         const struct ls_link *link) {
  const struct ls_loaded_list *known = ahead->known;
  uint32_t i = ahead->next;
  while (i < known->count && known->entry[i].at != at)
    i++;
  if (i == known->count)
    return NULL;
  ahead->next = i + 1; /* those between went away */
  return same(&known->entry[i].link, link) ? &known->entry[i] : NULL;
}

static bool read_namespace(struct ls_loaded_list *to, struct ahead *ahead, uintptr_t at,
                           ls_loaded_enter *enter) {
  uintptr_t previous = 0;
  for (uintptr_t next; at; previous = at, at = next) {
    if (to->count == LS_MAX_LOADED)
      return false;
    struct ls_loaded *entry = &to->entry[to->count];
    struct ls_link link;
    if (!fetch(ahead, at, &link) || link.previous != previous)
      return false;
    const struct ls_loaded *known = recognise(ahead, at, &link);
    *entry = (struct ls_loaded){.at = at, .link = link};
    entry->module = known ? known->module : enter(&link, !previous);
    to->count++;
    next = link.next;
  }
  return true;
}

void ls_loaded_read(struct ls_loaded_list *to, const struct ls_loaded_list *from,
                    ls_loaded_enter *enter) {
  static struct ahead ahead; /* 2.5 KB are much for a signal stack */
  ahead.known = from;
  ahead.next = ahead.first = ahead.count = 0;
  to->count = 0;
  to->whole = false;
  struct debug debug;
  uintptr_t at = first_debug();
  bool whole = at != 0;
  for (uint32_t n = 0; whole && at && n < MAX_NAMESPACES; n++, at = debug.next)
    if (!read_debug(at, &debug))
      whole = n > 0; /* a namespace may be empty */
    else
      whole = read_namespace(to, &ahead, debug.map, enter);
  to->whole = whole;
}

bool ls_loaded_read_tail(struct ls_loaded_list *list, ls_loaded_enter *enter) {
  struct debug debug;
  struct ls_link link;
  if (!list->whole || !list->count)
    return false;
  struct ls_loaded *last = &list->entry[list->count - 1];
  if (!read_debug(first_debug(), &debug) || debug.next || debug.map != list->entry[0].at ||
      !ls_peek(&link, last->at, sizeof link) || !same(&link, &last->link) ||
      link.previous != last->link.previous)
    return false;
  uintptr_t previous = last->at, at = link.next;
  last->link.next = at;
  for (; at; previous = at, at = link.next) {
    if (list->count == LS_MAX_LOADED || !ls_peek(&link, at, sizeof link) ||
        link.previous != previous)
      return list->whole = false;
    struct ls_loaded *entry = &list->entry[list->count++];
    *entry = (struct ls_loaded){.at = at, .link = link};
    entry->module = enter(&link, false);
  }
  return true;
}
