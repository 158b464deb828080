// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * The table of loaded ELF objects.
 *
 * Entries never move. A sorted array of them is rebuilt by each change in the one of two
 * buffers that readers are not using, and published by a generation number; a reader
 * searches again in the rare case that its buffer was taken over meanwhile.
 *
 * Objects are found in the loader's list, where an object that is new costs what it takes to
 * read that one; and, where code is met that is in none of them, by looking below it for the
 * headers of a file that was mapped without the loader. Nothing is opened.
 */
#include "modules.h"

#include <elf.h>

#include "counters.h"
#include "image.h"
#include "loaded.h"
#include "lock.h"
#include "peek.h"
#include "private.h"
#include "recording.h"
#include "resolve.h"
#include "str.h"
#include "sys.h"

#define MAX_MODULES LSR_MAX_MODULES
#define MAX_ELSEWHERE 32u
#define MAX_PATH 4096u
#define PAGE 4096u
#define PAGE_OF(address) ((address) & ~(uintptr_t)(PAGE - 1))
#define LOOK_BELOW (16u << 20) /* bytes, for the headers of what the loader does not know */
#define LOOK_ABOVE (256u << 10)

struct span {
  uintptr_t start, end;
  struct ls_module *module;
};

/* Code addresses known to be outside every ELF object. */
struct elsewhere {
  uintptr_t start, end;
};

static struct tables {
  struct ls_module modules[MAX_MODULES];
  struct span spans[2][MAX_MODULES];
  struct ls_loaded_list loaded[2];
  struct ls_module *fresh[MAX_MODULES]; /* present from this scan on, sorted by address */
} *tables;

static uint32_t module_count;      /* under scan_lock */
static uint32_t fresh_count;
static uint32_t loaded_now;        /* which of the two lists */
static uint32_t span_count[2];
static uint32_t generation;        /* the published buffer is generation & 1 */
static uint32_t writing;           /* generation + 1 while a scan fills the other buffer */
static uint32_t scan_number;
static bool vanished;              /* in this scan */
static bool unknown_told;          /* a reader was told for certain that an address is in none */
static struct ls_lock scan_lock;

static struct elsewhere elsewhere[MAX_ELSEWHERE]; /* written under scan_lock */
static uint32_t elsewhere_sequence;               /* odd while written */
static uint32_t elsewhere_count;
static uint64_t elsewhere_expires;                /* ls_counter() */
static uint64_t next_refresh;                     /* ls_counter(): no fruitless scan before */

uint32_t ls_module_epoch_now = 1;

struct ls_lock *ls_modules_lock(void) { return &scan_lock; }

/* ---- readers ---- */

const struct ls_module *ls_module_find(uintptr_t pc) {
  for (;;) {
    uint32_t current = __atomic_load_n(&generation, __ATOMIC_ACQUIRE);
    if (!current)
      return NULL; /* nothing was ever scanned */
    const struct span *spans = tables->spans[current & 1];
    uint32_t low = 0, high = __atomic_load_n(&span_count[current & 1], __ATOMIC_RELAXED);
    while (low < high) {
      uint32_t middle = (low + high) / 2;
      if (pc < __atomic_load_n(&spans[middle].end, __ATOMIC_RELAXED))
        high = middle;
      else
        low = middle + 1;
    }
    const struct ls_module *found = NULL;
    if (low < MAX_MODULES && low < __atomic_load_n(&span_count[current & 1], __ATOMIC_RELAXED) &&
        pc >= __atomic_load_n(&spans[low].start, __ATOMIC_RELAXED))
      found = __atomic_load_n(&spans[low].module, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    if (LS_LIKELY(__atomic_load_n(&writing, __ATOMIC_RELAXED) - current < 2))
      return found;
  }
}

bool ls_module_unknown_is_fresh(void) {
  return ls_counter() < __atomic_load_n(&elsewhere_expires, __ATOMIC_RELAXED);
}

static bool is_elsewhere(uintptr_t pc) {
  uint32_t before = __atomic_load_n(&elsewhere_sequence, __ATOMIC_ACQUIRE);
  uint32_t count = __atomic_load_n(&elsewhere_count, __ATOMIC_RELAXED);
  bool found = false;
  for (uint32_t i = 0; i < count && i < MAX_ELSEWHERE; i++)
    found |= pc >= __atomic_load_n(&elsewhere[i].start, __ATOMIC_RELAXED) &&
             pc < __atomic_load_n(&elsewhere[i].end, __ATOMIC_RELAXED);
  __atomic_thread_fence(__ATOMIC_ACQUIRE);
  return found && !(before & 1) &&
         before == __atomic_load_n(&elsewhere_sequence, __ATOMIC_RELAXED) &&
         ls_module_unknown_is_fresh();
}

/* Where the kernel may not be asked whether memory is there, what was loaded is believed to be
 * there until the program unloads anything. */
static bool unloaded_unseen;

static bool may_be_asked(void) { return ls_is_readable(&unloaded_unseen); }

bool ls_module_is_intact(const struct ls_module *module) {
  if (module->gone)
    return false;
  if (ls_is_sealed() && !may_be_asked())
    return !unloaded_unseen;
  if (!ls_is_readable((const void *)module->start))
    return false;
  if (memcmp((const void *)module->start, module->header, sizeof module->header))
    return false;
  return !module->build_id_at ||
         !memcmp(module->build_id_at, module->build_id, module->build_id_bytes);
}

/* ---- the table, under scan_lock ---- */

/* Too big for a host's signal stack. */
static struct {
  struct ls_image image;
  char path[MAX_PATH];
  uint8_t resident[LOOK_BELOW / PAGE];
} scratch;

static bool get_tables(void) {
  if (tables)
    return true;
  void *memory = ls_private(sizeof *tables);
  if (!memory)
    return false;
  tables = memory;
  return true;
}

static void mark_gone(struct ls_module *module) {
  if (module->gone)
    return;
  __atomic_store_n(&module->gone, true, __ATOMIC_RELAXED);
  vanished = true;
  if (module->index)
    ls_recording_module_gone(module->index);
}

static void mark_present(struct ls_module *module) {
  module->seen = scan_number;
  if (!module->gone || fresh_count == MAX_MODULES)
    return;
  __atomic_store_n(&module->gone, false, __ATOMIC_RELAXED);
  /* Whatever was published there before is no more. */
  const struct span *spans = tables->spans[generation & 1];
  uint32_t low = 0, high = span_count[generation & 1];
  while (low < high) {
    uint32_t middle = (low + high) / 2;
    if (module->start < spans[middle].end)
      high = middle;
    else
      low = middle + 1;
  }
  for (; low < span_count[generation & 1] && spans[low].start < module->end; low++)
    if (spans[low].module != module)
      mark_gone(spans[low].module);
  uint32_t at = fresh_count++;
  for (; at > 0 && tables->fresh[at - 1]->start > module->start; at--)
    tables->fresh[at] = tables->fresh[at - 1];
  tables->fresh[at] = module;
}

static void put_span(struct span *spans, uint32_t *count, struct ls_module *module) {
  if (module->gone || *count == MAX_MODULES || (*count && spans[*count - 1].module == module))
    return;
  struct span *span = &spans[(*count)++];
  __atomic_store_n(&span->start, module->start, __ATOMIC_RELAXED);
  __atomic_store_n(&span->end, module->end, __ATOMIC_RELAXED);
  __atomic_store_n(&span->module, module, __ATOMIC_RELAXED);
}

/* Publish the modules that are present: what was published and is not gone, and the fresh. */
static void publish(void) {
  uint32_t next = generation + 1;
  __atomic_store_n(&writing, next, __ATOMIC_RELAXED);
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  const struct span *old = tables->spans[generation & 1];
  struct span *spans = tables->spans[next & 1];
  uint32_t old_count = span_count[generation & 1], count = 0, f = 0;
  for (uint32_t i = 0; i < old_count; i++) {
    for (; f < fresh_count && tables->fresh[f]->start < old[i].start; f++)
      put_span(spans, &count, tables->fresh[f]);
    put_span(spans, &count, old[i].module);
  }
  for (; f < fresh_count; f++)
    put_span(spans, &count, tables->fresh[f]);
  fresh_count = 0;
  __atomic_store_n(&span_count[next & 1], count, __ATOMIC_RELAXED);
  __atomic_store_n(&generation, next, __ATOMIC_RELEASE);
}

/* Tell the recording of it, which is another one since a fork. */
static void announce(struct ls_module *module) {
  struct ls_module_info info = {.start = module->start,
                                .end = module->end,
                                .bias = module->bias,
                                .path = module->path,
                                .path_bytes = module->path_bytes,
                                .build_id = module->build_id,
                                .build_id_bytes = module->build_id_bytes};
  module->index = ls_recording_add_module(&info);
  module->announced = true;
}

/* The module of scratch.image, whose path is in scratch.path; entered when it is not known. */
static struct ls_module *enter_image(size_t path_bytes, bool listed) {
  struct ls_module *fresh = &scratch.image.module, *module = NULL;
  fresh->path_hash = ls_image_hash(scratch.path, path_bytes);
  for (uint32_t i = module_count; i-- > 0 && !module;) {
    struct ls_module *known = &tables->modules[i];
    if (known->start == fresh->start && known->end == fresh->end && known->bias == fresh->bias &&
        known->page_hash == fresh->page_hash && known->path_hash == fresh->path_hash &&
        known->build_id_bytes == fresh->build_id_bytes &&
        !memcmp(known->build_id, fresh->build_id, fresh->build_id_bytes) &&
        !memcmp(known->header, fresh->header, sizeof fresh->header))
      module = known;
  }
  if (!module) {
    if (module_count == MAX_MODULES) {
      ls_count_drop_anywhere(LSR_DROP_MODULES_FULL);
      return NULL;
    }
    module = &tables->modules[module_count];
    char *path = ls_private(path_bytes);
    *module = *fresh;
    module->path = path ? memcpy(path, scratch.path, path_bytes) : NULL;
    module->path_bytes = path ? (uint32_t)path_bytes : 0;
    module->gone = true; /* becomes present below, as one that came back does */
    module_count++;
  }
  module->listed |= listed;
  mark_present(module);
  if (!module->announced)
    announce(module);
  return module;
}

/* ---- what the loader lists ---- */

static uintptr_t vdso;
static const struct ls_module *vdso_module;

static size_t set_path(const char *text) {
  size_t n = 0;
  for (; text[n]; n++)
    scratch.path[n] = text[n];
  return n;
}

/* As the loader was given it: may lead through links, or be relative. */
static size_t listed_path(const struct ls_link *link, bool main_program) {
  if (main_program && ls_main_path)
    return set_path(ls_main_path);
  if (main_program) {
    long n = ls_readlink("/proc/self/exe", scratch.path, sizeof scratch.path - 1);
    return n > 0 ? (size_t)n : 0;
  }
  size_t folder = 0, bytes = ls_peek_string(scratch.path, link->name, sizeof scratch.path - 1);
  if (!bytes || scratch.path[0] == '/')
    return bytes;
  char name[256];
  if (bytes > sizeof name)
    return bytes;
  memcpy(name, scratch.path, bytes);
  long n = ls_readlink("/proc/self/cwd", scratch.path, sizeof scratch.path - sizeof name - 1);
  if (n > 0 && scratch.path[0] == '/') {
    folder = (size_t)n;
    scratch.path[folder++] = '/';
  }
  memcpy(scratch.path + folder, name, bytes);
  return folder + bytes;
}

static bool is_image_of(uintptr_t where, const struct ls_link *link) {
  return ls_image_read(&scratch.image, where) && scratch.image.module.bias == link->bias &&
         (!link->dynamic || scratch.image.dynamic == link->dynamic);
}

/* The header lies where addresses in the file begin, which is 0 for all but a few. */
static bool find_image(const struct ls_link *link, bool main_program) {
  if (main_program && ls_main_program)
    return is_image_of(ls_main_program, link);
  if (is_image_of(link->bias, link))
    return true;
  uintptr_t page = PAGE_OF(link->dynamic);
  for (uint32_t n = 0; n < LOOK_BELOW / PAGE && page >= PAGE; n++, page -= PAGE) {
    uint32_t magic;
    if (ls_peek(&magic, page, sizeof magic) && magic == 0x464c457f /* \177ELF */ &&
        is_image_of(page, link))
      return true;
  }
  return false;
}

static struct ls_module *enter_listed(const struct ls_link *link, bool first) {
  bool main_program = first && link->name;
  char name = 0;
  main_program = main_program && ls_peek(&name, link->name, 1) && !name;
  if (!find_image(link, main_program))
    return NULL;
  size_t path_bytes;
  if (scratch.image.module.start == vdso)
    path_bytes = set_path("[vdso]");
  else if (!(path_bytes = ls_image_path(&scratch.image, scratch.path, sizeof scratch.path)))
    path_bytes = listed_path(link, main_program);
  return enter_image(path_bytes, true);
}

static void enter_vdso(void) {
  if (vdso && ls_image_read(&scratch.image, vdso))
    vdso_module = enter_image(set_path("[vdso]"), false);
}

/* A program without a loader. */
static void enter_alone(void) {
  static bool entered;
  if (!entered && ls_main_path && ls_main_program && ls_image_read(&scratch.image, ls_main_program))
    entered = enter_image(set_path(ls_main_path), false) != NULL;
}

/* The next scan shall not believe that it is still what it was. */
static void distrust(const struct ls_module *module) {
  struct ls_loaded_list *list = &tables->loaded[loaded_now];
  for (uint32_t i = 0; i < list->count; i++)
    if (list->entry[i].module == module)
      list->entry[i].link.bias = ~list->entry[i].link.bias;
}

/* ---- what the loader does not know ---- */

static void forget_elsewhere(void) {
  __atomic_add_fetch(&elsewhere_sequence, 1, __ATOMIC_ACQ_REL);
  __atomic_store_n(&elsewhere_count, 0, __ATOMIC_RELAXED);
  __atomic_add_fetch(&elsewhere_sequence, 1, __ATOMIC_RELEASE);
}

static void remember_elsewhere(uintptr_t start, uintptr_t end) {
  static uint32_t oldest;
  uint32_t at = 0;
  while (at < elsewhere_count && elsewhere[at].end != start && elsewhere[at].start != end)
    at++;
  if (at < elsewhere_count) { /* next to it: one */
    start = start < elsewhere[at].start ? start : elsewhere[at].start;
    end = end > elsewhere[at].end ? end : elsewhere[at].end;
  } else if (at == MAX_ELSEWHERE) {
    at = oldest++ % MAX_ELSEWHERE;
  }
  __atomic_add_fetch(&elsewhere_sequence, 1, __ATOMIC_ACQ_REL);
  __atomic_store_n(&elsewhere[at].start, start, __ATOMIC_RELAXED);
  __atomic_store_n(&elsewhere[at].end, end, __ATOMIC_RELAXED);
  if (at == elsewhere_count)
    __atomic_store_n(&elsewhere_count, at + 1, __ATOMIC_RELAXED);
  __atomic_add_fetch(&elsewhere_sequence, 1, __ATOMIC_RELEASE);
}

/* Where the nearest module below `pc` ends, or the nearest range known to be of none. */
static uintptr_t known_below(uintptr_t pc) {
  uintptr_t floor = pc > LOOK_BELOW ? pc - LOOK_BELOW : PAGE;
  const struct span *spans = tables->spans[generation & 1];
  for (uint32_t i = span_count[generation & 1]; i-- > 0;)
    if (spans[i].end <= pc) {
      if (spans[i].end > floor)
        floor = spans[i].end;
      break;
    }
  for (uint32_t i = 0; i < elsewhere_count; i++)
    if (elsewhere[i].end <= pc && elsewhere[i].end > floor)
      floor = elsewhere[i].end;
  return PAGE_OF(floor + PAGE - 1);
}

/* Which pages of [low, high) are there to be looked at without bringing them in. The pages
 * [ret, high) are mapped. */
static uintptr_t find_resident(uintptr_t low, uintptr_t high, bool upwards) {
  uintptr_t piece = 64 * PAGE;
  if (upwards) {
    uintptr_t at = low;
    for (; at < high; at += PAGE)
      if (ls_mincore((void *)at, PAGE, &scratch.resident[(at - low) / PAGE]) < 0)
        break;
    return at;
  }
  while (high > low) {
    uintptr_t from = high - low > piece ? high - piece : low;
    if (ls_mincore((void *)from, high - from, &scratch.resident[(from - low) / PAGE]) == 0)
      high = from;
    else if (piece == PAGE)
      break;
    else
      piece = PAGE;
  }
  return high;
}

/* The pages from `first` on hold an ELF object that executes `pc`: enter it. */
static bool enter_unlisted(uintptr_t page, uintptr_t pc) {
  uint32_t magic;
  if (!ls_peek(&magic, page, sizeof magic) || magic != 0x464c457f ||
      !ls_image_read(&scratch.image, page) || !ls_image_executes(&scratch.image, pc))
    return false;
  /* A copy of a file in memory is data; so is what only looks like an object. */
  size_t path_bytes = ls_image_path(&scratch.image, scratch.path, sizeof scratch.path);
  if (!path_bytes)
    return false;
  ls_image_check_readable(&scratch.image);
  return enter_image(path_bytes, false) != NULL;
}

/* Look for an object around `pc`, or remember that there is none. */
static bool look_around(uintptr_t pc) {
  uintptr_t page = PAGE_OF(pc), floor = known_below(pc);
  if (floor > page)
    floor = page;
  uintptr_t low = find_resident(floor, page + PAGE, false);
  for (uintptr_t at = page; at >= low && at < page + PAGE; at -= PAGE)
    if (scratch.resident[(at - floor) / PAGE] & 1 && enter_unlisted(at, pc))
      return true;
  if (low > page)
    return false; /* not even mapped */
  /* No object begins below in reach. Up to where one might, nothing else is any. */
  uintptr_t high = page + PAGE, end = find_resident(high, high + LOOK_ABOVE, true);
  uint32_t magic;
  for (uintptr_t at = high; at < end; at += PAGE, high = at)
    if (ls_module_find(at) || (scratch.resident[(at - page - PAGE) / PAGE] & 1 &&
                               (!ls_peek(&magic, at, sizeof magic) || magic == 0x464c457f)))
      break;
  remember_elsewhere(low, high);
  return false;
}

/* ---- scans ---- */

static void begin_scan(void) {
  scan_number++;
  vanished = false;
}

static void end_scan(void) {
  bool came = fresh_count != 0;
  if (came) {
    /* What was in no object may be in one now. */
    forget_elsewhere();
    __atomic_store_n(&elsewhere_expires, 0, __ATOMIC_RELAXED);
  }
  if (came || vanished || !generation)
    publish();
  if (vanished || (came && unknown_told)) {
    unknown_told = false;
    __atomic_add_fetch(&ls_module_epoch_now, 1, __ATOMIC_ACQ_REL);
  }
}

static void scan_all(void) {
  uint32_t next = loaded_now ^ 1;
  for (unsigned tries = 0; tries < 3; tries++) {
    ls_loaded_read(&tables->loaded[next], &tables->loaded[loaded_now], enter_listed);
    if (tables->loaded[next].whole)
      break; /* else another thread is at it */
  }
  struct ls_loaded_list *list = &tables->loaded[next];
  loaded_now = next;
  for (uint32_t i = 0; i < list->count; i++)
    if (list->entry[i].module)
      mark_present(list->entry[i].module);
  if (!list->count)
    enter_alone();
  if (!vdso_module)
    enter_vdso();
  /* Some programs copy their own text onto huge pages: the file is gone, the object is not. */
  for (uint32_t i = 0; i < module_count; i++) {
    struct ls_module *module = &tables->modules[i];
    if (module->seen == scan_number || module->gone)
      continue;
    if ((module->listed && list->whole) || !ls_module_is_intact(module))
      mark_gone(module);
  }
  for (uint32_t i = 0; i < module_count; i++)
    if (!tables->modules[i].announced && !tables->modules[i].gone)
      announce(&tables->modules[i]); /* known from before a fork */
}

/* Objects that came since the last scan. */
static void scan_new(void) {
  if (!ls_loaded_read_tail(&tables->loaded[loaded_now], enter_listed))
    scan_all();
}

const struct ls_module *ls_module_find_or_refresh(uintptr_t pc, bool *ret_certain) {
  *ret_certain = true;
  const struct ls_module *module = ls_module_find(pc);
  if (module && ls_module_is_intact(module))
    return module;
  if (pc < 4096 || pc >> 56)
    return NULL;
  if (!module) {
    if (is_elsewhere(pc))
      return NULL;
    if (ls_counter() < __atomic_load_n(&next_refresh, __ATOMIC_RELAXED)) {
      *ret_certain = false;
      return NULL;
    }
  }
  ls_lock(&scan_lock);
  uint64_t begun = ls_counter();
  if (!get_tables()) {
    ls_unlock(&scan_lock);
    return NULL;
  }
  if (begun >= elsewhere_expires || module)
    forget_elsewhere();
  begin_scan();
  if (module) {
    distrust(module);
    scan_all();
  } else {
    scan_new();
  }
  end_scan();
  const struct ls_module *found = ls_module_find(pc);
  if (found == module && module && !ls_module_is_intact(module))
    found = NULL; /* being unmapped right now: neither there nor gone */
  if (!found) {
    begin_scan();
    bool entered = look_around(pc);
    end_scan();
    if (entered)
      found = ls_module_find(pc);
  }
  uint64_t now = ls_counter();
  if (!found) {
    unknown_told = true;
    /* Code that belongs to nobody may cost a burst of 32 scans, and one part in 64 of the
     * time in the long run. What is known of it grows old: an object may be mapped there. */
    uint64_t due = now - (now - begun) * 64 * 32;
    if (due > now || due < next_refresh)
      due = next_refresh;
    __atomic_store_n(&next_refresh, due + (now - begun) * 64, __ATOMIC_RELAXED);
    __atomic_store_n(&elsewhere_expires, now + (now - begun) * 256, __ATOMIC_RELAXED);
  }
  ls_unlock(&scan_lock);
  return found;
}

bool ls_modules_rescan(void) {
  bool went = false;
  ls_lock(&scan_lock);
  bool blind = ls_is_sealed() && generation && !may_be_asked();
  unloaded_unseen |= blind;
  if (get_tables()) {
    if (!generation) {
      ls_loaded_find();
      vdso = (uintptr_t)ls_auxiliary(AT_SYSINFO_EHDR);
    }
    begin_scan();
    scan_all();
    end_scan();
    went = vanished;
  }
  ls_unlock(&scan_lock);
  return went || blind;
}

bool ls_modules_reset_after_fork(void) {
  bool torn = scan_lock.word || writing != generation; /* another thread was at it */
  bool same = !torn;
  scan_lock = (struct ls_lock){0, 0, 0};
  elsewhere_sequence = 0;
  elsewhere_count = 0;
  next_refresh = 0;
  fresh_count = 0;
  if (torn)
    vdso_module = NULL;
  if (tables && torn) /* to be looked at again */
    tables->loaded[0].count = tables->loaded[1].count = 0;
  for (uint32_t i = 0; i < module_count; i++) {
    struct ls_module *module = &tables->modules[i];
    same &= !module->gone && module->index == i + 1;
    module->index = 0;
    module->announced = false;
  }
  ls_module_epoch_now++;
  return same;
}
