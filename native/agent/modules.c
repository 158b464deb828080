// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * The table of loaded ELF objects.
 *
 * Entries never move. A sorted array of them is rebuilt by each scan in the one of two
 * buffers that readers are not using, and published by a generation number; a reader
 * searches again in the rare case that its buffer was taken over meanwhile.
 */
#include "modules.h"

#include "agent.h"
#include "loader.h"
#include "str.h"
#include "sys.h"

#define MAX_MODULES LSR_MAX_MODULES
#define MAX_SEGMENTS 24u
#define MAX_ELSEWHERE 32u
#define MAPS_BUFFER 4096u
#define MAX_PATH 4096u
#define FOREVER UINT64_MAX

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
} *tables;

static uint32_t module_count;      /* under scan_lock */
static uint32_t span_count[2];
static uint32_t generation;        /* the published buffer is generation & 1 */
static uint32_t writing;           /* generation + 1 while a scan fills the other buffer */
static uint32_t scan_number;
static bool loader_was_asked;
static struct ls_lock scan_lock;

static struct elsewhere elsewhere[MAX_ELSEWHERE]; /* written under scan_lock */
static uint32_t elsewhere_sequence;               /* odd while written */
static uint32_t elsewhere_count;
static uint64_t elsewhere_expires;                /* ls_counter() */
static uint64_t next_refresh;                     /* ls_counter(): no fruitless scan before */

uint32_t ls_module_epoch_now = 1;

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

/* ---- safe reading of other people's memory ---- */

/* Copy bytes that may vanish while we look (another thread in dlclose, a file cut short). */
static bool copy_in(void *to, uintptr_t from, size_t bytes) {
  struct ls_iovec local = {to, bytes}, remote = {(void *)from, bytes};
  long n = ls_process_vm_readv(ls_getpid(), &local, 1, &remote, 1, 0);
  if (n == (long)bytes)
    return true;
  if (n >= 0 || n == -14 /* EFAULT */)
    return false;
  /* Forbidden or unknown here: ask first, page by page, then read. */
  for (uintptr_t page = from & ~(uintptr_t)4095; page < from + bytes; page += 4096)
    if (!ls_is_readable((const void *)(page < from ? from & ~(uintptr_t)7 : page)))
      return false;
  memcpy(to, (const void *)from, bytes);
  return true;
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

/* ---- one object under examination ---- */

struct segment {
  uintptr_t start, end; /* run-time, not rounded */
  uint32_t flags;
};

struct candidate {
  bool active;
  bool confirmed; /* an executable segment is mapped where the headers say */
  struct ls_module module;
  uintptr_t hdr_low, hdr_high; /* eh_frame_hdr as the program headers claim it */
  uintptr_t run_low, run_high; /* the current run of adjacent readable mappings */
  uint32_t segment_count;
  struct segment segments[MAX_SEGMENTS];
  size_t path_bytes;
};

/* All of it is used under scan_lock, and too big for a host's signal stack. */
static struct {
  struct candidate candidate;
  char buffer[MAPS_BUFFER];
  char path[MAX_PATH];           /* of the current line */
  char candidate_path[MAX_PATH];
  uint8_t page[4096];
} scratch;

static uint64_t hash_bytes(const char *text, size_t bytes) {
  uint64_t hash = 0xcbf29ce484222325ull;
  for (size_t i = 0; i < bytes; i++)
    hash = (hash ^ (uint8_t)text[i]) * 0x100000001b3ull;
  return hash;
}

static void find_build_id(struct ls_module *module, uintptr_t notes, size_t bytes) {
  uint8_t copy[512];
  if (bytes > sizeof copy)
    bytes = sizeof copy;
  if (notes < module->start || notes >= module->end || bytes > module->end - notes ||
      !copy_in(copy, notes, bytes))
    return;
  for (size_t at = 0; bytes - at >= sizeof(Elf64_Nhdr);) {
    Elf64_Nhdr note;
    memcpy(&note, copy + at, sizeof note);
    size_t left = bytes - at - sizeof note;
    size_t name_bytes = ((size_t)note.n_namesz + 3) & ~(size_t)3;
    size_t data_bytes = ((size_t)note.n_descsz + 3) & ~(size_t)3;
    if (name_bytes > left || note.n_descsz > left - name_bytes)
      return;
    size_t name = at + sizeof note, data = name + name_bytes;
    if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == 4 && !memcmp(copy + name, "GNU", 4) &&
        note.n_descsz > 0 && note.n_descsz <= sizeof module->build_id) {
      memcpy(module->build_id, copy + data, note.n_descsz);
      module->build_id_bytes = (uint8_t)note.n_descsz;
      if (notes + data + note.n_descsz - module->start <= 4096)
        module->build_id_at = (const uint8_t *)notes + data;
      return;
    }
    if (data_bytes > left - name_bytes)
      return;
    at = data + data_bytes;
  }
}

/* Fill a module from its headers; `where` is what is mapped at file offset 0. */
static bool read_headers(struct candidate *candidate, uintptr_t where, uintptr_t where_end) {
  Elf64_Ehdr ehdr;
  struct ls_module *module = &candidate->module;
  if (where_end - where < sizeof ehdr || !copy_in(&ehdr, where, sizeof ehdr))
    return false;
  if (memcmp(ehdr.e_ident, ELFMAG, SELFMAG) || ehdr.e_ident[EI_CLASS] != ELFCLASS64 ||
      (ehdr.e_type != ET_EXEC && ehdr.e_type != ET_DYN) ||
      ehdr.e_phentsize != sizeof(Elf64_Phdr) || !ehdr.e_phnum)
    return false;
  size_t header_bytes = (size_t)ehdr.e_phnum * sizeof(Elf64_Phdr);
  if (header_bytes > sizeof scratch.page || ehdr.e_phoff > where_end - where ||
      header_bytes > where_end - where - ehdr.e_phoff ||
      !copy_in(scratch.page, where + ehdr.e_phoff, header_bytes))
    return false;
  uintptr_t low = UINTPTR_MAX, high = 0;
  bool found_base = false, executable = false;
  Elf64_Phdr ph;
  for (unsigned i = 0; i < ehdr.e_phnum; i++) {
    memcpy(&ph, scratch.page + i * sizeof ph, sizeof ph);
    if (ph.p_type != PT_LOAD)
      continue;
    if (ph.p_memsz > UINTPTR_MAX / 4 || ph.p_vaddr > UINTPTR_MAX - ph.p_memsz)
      return false;
    if (!found_base && ph.p_offset < 4096) {
      /* The segment that holds the headers starts at `where`. */
      module->bias = where - (ph.p_vaddr - ph.p_offset);
      found_base = true;
    }
    if (ph.p_vaddr < low)
      low = ph.p_vaddr;
    if (ph.p_vaddr + ph.p_memsz > high)
      high = ph.p_vaddr + ph.p_memsz;
    executable |= (ph.p_flags & PF_X) != 0;
  }
  if (!found_base || !executable)
    return false;
  module->start = (module->bias + low) & ~(uintptr_t)4095;
  module->end = module->bias + high;
  if (module->start != where || module->end <= where || module->end - where > UINTPTR_MAX / 4)
    return false;
  memcpy(module->header, &ehdr, sizeof module->header);
  module->entry = ehdr.e_entry ? module->bias + ehdr.e_entry : 0;
  for (unsigned i = 0; i < ehdr.e_phnum; i++) {
    memcpy(&ph, scratch.page + i * sizeof ph, sizeof ph);
    uintptr_t at = module->bias + ph.p_vaddr;
    if (ph.p_type == PT_LOAD && candidate->segment_count < MAX_SEGMENTS) {
      candidate->segments[candidate->segment_count++] =
          (struct segment){at, at + ph.p_memsz, ph.p_flags};
    } else if (ph.p_type == PT_GNU_EH_FRAME && at >= module->start && at < module->end &&
               ph.p_memsz <= module->end - at) {
      candidate->hdr_low = at;
      candidate->hdr_high = at + ph.p_memsz;
    }
  }
  for (unsigned i = 0; i < ehdr.e_phnum && !module->build_id_bytes; i++) {
    memcpy(&ph, scratch.page + i * sizeof ph, sizeof ph);
    if (ph.p_type == PT_NOTE)
      find_build_id(module, module->bias + ph.p_vaddr, ph.p_filesz);
  }
  return true;
}

/* The bytes [low, high) of the object are mapped readable; adjacent calls join. */
static void note_readable(struct candidate *candidate, uintptr_t low, uintptr_t high) {
  struct ls_module *module = &candidate->module;
  if (high > module->end)
    high = module->end;
  if (low >= high)
    return;
  if (candidate->run_high != low)
    candidate->run_low = low;
  candidate->run_high = high;
  if (candidate->hdr_high && candidate->hdr_low >= candidate->run_low &&
      candidate->hdr_high <= candidate->run_high) {
    module->eh_frame_hdr = (const uint8_t *)candidate->hdr_low;
    module->eh_frame_hdr_size = candidate->hdr_high - candidate->hdr_low;
    module->read_low = candidate->run_low;
    module->read_high = candidate->run_high;
  }
}

static void note_executable(struct candidate *candidate, uintptr_t low, uintptr_t high,
                            bool readable) {
  for (uint32_t s = 0; s < candidate->segment_count; s++) {
    const struct segment *segment = &candidate->segments[s];
    if (!(segment->flags & PF_X) || low >= segment->end || high <= segment->start ||
        (segment->start & ~(uintptr_t)4095) < low)
      continue;
    candidate->confirmed = true;
    if (readable && !candidate->module.text_high) {
      candidate->module.text_low = segment->start;
      candidate->module.text_high = segment->end < high ? segment->end : high;
    }
  }
}

/* Enter a confirmed candidate into the table, or find it there. */
static void finish_candidate(void) {
  struct candidate *candidate = &scratch.candidate;
  if (!candidate->active)
    return;
  candidate->active = false;
  if (!candidate->confirmed)
    return;
  struct ls_module *fresh = &candidate->module, *module = NULL;
  static const char deleted[] = " (deleted)";
  size_t tail = sizeof deleted - 1;
  if (candidate->path_bytes > tail &&
      !memcmp(scratch.candidate_path + candidate->path_bytes - tail, deleted, tail))
    candidate->path_bytes -= tail;
  fresh->path_hash = hash_bytes(scratch.candidate_path, candidate->path_bytes);
  for (uint32_t i = 0; i < module_count && !module; i++) {
    struct ls_module *known = &tables->modules[i];
    if (known->start == fresh->start && known->end == fresh->end && known->bias == fresh->bias &&
        known->dev == fresh->dev && known->inode == fresh->inode &&
        known->path_hash == fresh->path_hash &&
        known->build_id_bytes == fresh->build_id_bytes &&
        !memcmp(known->build_id, fresh->build_id, fresh->build_id_bytes) &&
        !memcmp(known->header, fresh->header, sizeof fresh->header))
      module = known;
  }
  if (!module) {
    if (module_count == MAX_MODULES)
      return;
    module = &tables->modules[module_count];
    *module = *fresh;
    module->gone = true; /* becomes present below, as one that came back does */
    module_count++;
  }
  module->seen = scan_number;
  if (!module->announced) {
    struct ls_module_info info = {.start = module->start,
                                  .end = module->end,
                                  .bias = module->bias,
                                  .path = scratch.candidate_path,
                                  .path_bytes = candidate->path_bytes,
                                  .build_id = module->build_id,
                                  .build_id_bytes = module->build_id_bytes,
                                  .inode = module->inode};
    module->index = ls_recording_add_module(&info);
    module->announced = true;
  }
}

/* ---- /proc/self/maps ---- */

struct line {
  uintptr_t start, end, offset;
  uint64_t dev, inode;
  bool readable, executable;
  size_t path_bytes;
};

/* The mapping that holds the address a refresh was asked for. */
static struct line wanted_line;
static uintptr_t wanted;

static bool is_text(const char *text, size_t bytes, const char *expected, size_t expected_bytes) {
  return bytes == expected_bytes && !memcmp(text, expected, bytes);
}

static void take_line(const struct line *line) {
  if (line->end <= line->start)
    return;
  if (wanted >= line->start && wanted < line->end)
    wanted_line = *line;
  struct candidate *candidate = &scratch.candidate;
  struct ls_module *module = &candidate->module;
  bool inside = candidate->active && line->start < module->end;
  bool same_file = line->inode && line->inode == module->inode && line->dev == module->dev;
  bool vdso = is_text(scratch.path, line->path_bytes, "[vdso]", 6);
  if (line->offset == 0 && line->readable && (line->inode || vdso)) {
    /* A further mapping of offset 0 belongs to the object only where a segment begins. */
    bool continues = false;
    for (uint32_t s = 1; inside && same_file && s < candidate->segment_count; s++)
      continues |= (candidate->segments[s].start & ~(uintptr_t)4095) == line->start;
    if (!continues) {
      finish_candidate();
      memset(candidate, 0, sizeof *candidate);
      inside = false;
      if (read_headers(candidate, line->start, line->end)) {
        candidate->active = inside = true;
        module->dev = line->dev;
        module->inode = line->inode;
        memcpy(scratch.candidate_path, scratch.path, line->path_bytes);
        candidate->path_bytes = line->path_bytes;
        same_file = true;
      }
    }
  }
  if (!inside) {
    finish_candidate();
    return;
  }
  /* Text may have been remapped onto huge pages, which leaves it anonymous. */
  if (same_file || !line->inode) {
    if (line->readable)
      note_readable(candidate, line->start, line->end);
    if (line->executable)
      note_executable(candidate, line->start, line->end, line->readable);
  }
}

static void scan_maps(int fd) {
  struct line line;
  memset(&line, 0, sizeof line);
  enum { START, END, FLAGS, OFFSET, MAJOR, MINOR, INODE, SPACES, PATH } field = START;
  unsigned flag = 0;
  long n;
  while ((n = ls_read(fd, scratch.buffer, sizeof scratch.buffer)) > 0)
    for (long i = 0; i < n; i++) {
      char c = scratch.buffer[i];
      if (c == '\n') {
        take_line(&line);
        memset(&line, 0, sizeof line);
        field = START;
        flag = 0;
        continue;
      }
      uint64_t digit = (uint64_t)(c >= '0' && c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
      bool is_hex = digit < 16 && c != ' ';
      switch (field) {
      case START:
        if (c == '-')
          field = END;
        else if (is_hex)
          line.start = line.start << 4 | digit;
        break;
      case END:
        if (c == ' ')
          field = FLAGS;
        else if (is_hex)
          line.end = line.end << 4 | digit;
        break;
      case FLAGS:
        if (c == ' ')
          field = OFFSET;
        else if (flag++ == 0)
          line.readable = c == 'r';
        else if (flag == 3)
          line.executable = c == 'x';
        break;
      case OFFSET:
        if (c == ' ')
          field = MAJOR;
        else if (is_hex)
          line.offset = line.offset << 4 | digit;
        break;
      case MAJOR:
        if (c == ':')
          line.dev <<= 32, field = MINOR;
        else if (is_hex)
          line.dev = line.dev << 4 | digit;
        break;
      case MINOR:
        if (c == ' ')
          field = INODE;
        else if (is_hex)
          line.dev = (line.dev & ~0xffffffffull) | (((line.dev << 4) | digit) & 0xffffffffu);
        break;
      case INODE:
        if (c == ' ')
          field = SPACES;
        else if (digit < 10)
          line.inode = line.inode * 10 + digit;
        break;
      case SPACES:
        if (c == ' ')
          break;
        field = PATH;
        __attribute__((fallthrough));
      case PATH:
        if (line.path_bytes < sizeof scratch.path)
          scratch.path[line.path_bytes++] = c;
        break;
      }
    }
  finish_candidate();
}

/* ---- without /proc: ask the loader, once, at the start ---- */

static int take_loader_object(struct dl_info *info, size_t bytes, void *context) {
  (void)bytes, (void)context;
  uintptr_t low = UINTPTR_MAX, high = 0;
  for (unsigned i = 0; i < info->header_count; i++)
    if (info->headers[i].p_type == PT_LOAD) {
      uintptr_t at = info->bias + info->headers[i].p_vaddr;
      if (at < low)
        low = at;
      if (at + info->headers[i].p_memsz > high)
        high = at + info->headers[i].p_memsz;
    }
  struct candidate *candidate = &scratch.candidate;
  memset(candidate, 0, sizeof *candidate);
  low &= ~(uintptr_t)4095;
  if (low >= high || !read_headers(candidate, low, high))
    return 0;
  candidate->active = true;
  const char *name = info->name ? info->name : "";
  while (name[candidate->path_bytes] && candidate->path_bytes < sizeof scratch.candidate_path) {
    scratch.candidate_path[candidate->path_bytes] = name[candidate->path_bytes];
    candidate->path_bytes++;
  }
  for (uint32_t s = 0; s < candidate->segment_count; s++) {
    const struct segment *segment = &candidate->segments[s];
    uintptr_t start = segment->start & ~(uintptr_t)4095;
    if (segment->flags & PF_R)
      note_readable(candidate, start, segment->end);
    if (segment->flags & PF_X)
      note_executable(candidate, start, segment->end, segment->flags & PF_R);
  }
  finish_candidate();
  return 0;
}

/* ---- scans ---- */

enum change { CHANGE_NONE = 0, CHANGE_NEW = 1, CHANGE_VANISHED = 2 };

static bool get_tables(void) {
  if (tables)
    return true;
  void *memory = ls_private(sizeof *tables);
  if (!memory)
    return false;
  tables = memory;
  return true;
}

/* Publish the modules that are present, sorted by address. */
static void publish(void) {
  uint32_t next = generation + 1;
  __atomic_store_n(&writing, next, __ATOMIC_RELAXED);
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  struct span *spans = tables->spans[next & 1];
  uint32_t count = 0;
  for (uint32_t i = 0; i < module_count; i++) {
    struct ls_module *module = &tables->modules[i];
    if (module->gone)
      continue;
    uint32_t at = count++;
    for (; at > 0 && spans[at - 1].start > module->start; at--) {
      __atomic_store_n(&spans[at].start, spans[at - 1].start, __ATOMIC_RELAXED);
      __atomic_store_n(&spans[at].end, spans[at - 1].end, __ATOMIC_RELAXED);
      __atomic_store_n(&spans[at].module, spans[at - 1].module, __ATOMIC_RELAXED);
    }
    __atomic_store_n(&spans[at].start, module->start, __ATOMIC_RELAXED);
    __atomic_store_n(&spans[at].end, module->end, __ATOMIC_RELAXED);
    __atomic_store_n(&spans[at].module, module, __ATOMIC_RELAXED);
  }
  __atomic_store_n(&span_count[next & 1], count, __ATOMIC_RELAXED);
  __atomic_store_n(&generation, next, __ATOMIC_RELEASE);
}

static unsigned scan_locked(uintptr_t pc) {
  if (!get_tables())
    return CHANGE_NONE;
  scan_number++;
  scratch.candidate.active = false;
  wanted = pc;
  memset(&wanted_line, 0, sizeof wanted_line);
  int fd = ls_open("/proc/self/maps", 02000000 /* O_CLOEXEC */, 0);
  if (fd >= 0) {
    scan_maps(fd);
    ls_close(fd);
  } else if (!loader_was_asked && dl_iterate_phdr) {
    /* Later it could wait for a lock whose owner waits for us. */
    loader_was_asked = true;
    dl_iterate_phdr(take_loader_object, NULL);
  } else {
    return CHANGE_NONE;
  }
  unsigned change = CHANGE_NONE;
  for (uint32_t i = 0; i < module_count; i++) {
    struct ls_module *module = &tables->modules[i];
    /* Some programs copy their own text onto huge pages: the file is gone from the maps,
     * the object is not. */
    bool present = module->seen == scan_number || ls_module_is_intact(module);
    if (present && module->gone) {
      change |= CHANGE_NEW;
      __atomic_store_n(&module->gone, false, __ATOMIC_RELAXED);
    } else if (!present && !module->gone) {
      change |= CHANGE_VANISHED;
      __atomic_store_n(&module->gone, true, __ATOMIC_RELAXED);
      if (module->index)
        ls_recording_module_gone(module->index);
    }
  }
  if (change || !generation) {
    publish();
    __atomic_add_fetch(&ls_module_epoch_now, 1, __ATOMIC_ACQ_REL);
  }
  return change;
}

static void forget_elsewhere(void) {
  __atomic_add_fetch(&elsewhere_sequence, 1, __ATOMIC_ACQ_REL);
  __atomic_store_n(&elsewhere_count, 0, __ATOMIC_RELAXED);
  __atomic_add_fetch(&elsewhere_sequence, 1, __ATOMIC_RELEASE);
}

static void remember_elsewhere(uintptr_t pc) {
  static uint32_t oldest;
  uintptr_t start = pc & ~(uintptr_t)4095, end = start + 4096;
  if (wanted_line.executable) {
    start = wanted_line.start;
    end = wanted_line.end;
  }
  __atomic_add_fetch(&elsewhere_sequence, 1, __ATOMIC_ACQ_REL);
  uint32_t at = elsewhere_count < MAX_ELSEWHERE ? elsewhere_count : oldest++ % MAX_ELSEWHERE;
  __atomic_store_n(&elsewhere[at].start, start, __ATOMIC_RELAXED);
  __atomic_store_n(&elsewhere[at].end, end, __ATOMIC_RELAXED);
  if (at == elsewhere_count)
    __atomic_store_n(&elsewhere_count, at + 1, __ATOMIC_RELAXED);
  __atomic_add_fetch(&elsewhere_sequence, 1, __ATOMIC_RELEASE);
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
  if (begun >= elsewhere_expires || module)
    forget_elsewhere();
  scan_locked(pc);
  const struct ls_module *found = ls_module_find(pc);
  if (found == module && module && !ls_module_is_intact(module))
    found = NULL; /* being unmapped right now: neither there nor gone */
  uint64_t now = ls_counter();
  if (!found) {
    remember_elsewhere(pc);
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
  ls_lock(&scan_lock);
  forget_elsewhere();
  bool blind = ls_is_sealed() && !may_be_asked();
  unloaded_unseen |= blind;
  unsigned change = scan_locked(0);
  ls_unlock(&scan_lock);
  return blind || (change & CHANGE_VANISHED) != 0;
}

void ls_modules_reset_after_fork(void) {
  scan_lock.word = 0;
  elsewhere_sequence = 0;
  elsewhere_count = 0;
  next_refresh = 0;
  for (uint32_t i = 0; i < module_count; i++) {
    tables->modules[i].index = 0;
    tables->modules[i].announced = false;
  }
  ls_module_epoch_now++;
}
