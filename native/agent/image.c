// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Reading an ELF object's headers in memory.
 */
#include "image.h"

#include <elf.h>

#include "peek.h"
#include "str.h"
#include "sys.h"

#define PAGE_OF(address) ((address) & ~(uintptr_t)4095)

static void find_build_id(struct ls_module *module, uintptr_t notes, size_t bytes) {
  uint8_t copy[512];
  if (bytes > sizeof copy)
    bytes = sizeof copy;
  if (notes < module->start || notes >= module->end || bytes > module->end - notes ||
      !ls_peek(copy, notes, bytes))
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

/* The bytes [low, high) of the object can be read; adjacent calls join. */
struct run {
  uintptr_t low, high;
};

static void note_readable(struct ls_module *module, struct run *run, uintptr_t low, uintptr_t high) {
  if (high > module->end)
    high = module->end;
  if (low >= high)
    return;
  if (low > PAGE_OF(run->high + 4095) || !run->high)
    run->low = low;
  if (high > run->high)
    run->high = high;
  uintptr_t header = (uintptr_t)module->eh_frame_hdr;
  if (header && header >= run->low && header + module->eh_frame_hdr_size <= run->high) {
    module->read_low = run->low;
    module->read_high = run->high;
  }
}

uint64_t ls_image_hash(const void *from, size_t bytes) {
  uint64_t hash = 0xcbf29ce484222325ull;
  for (size_t i = 0; i < bytes; i++)
    hash = (hash ^ ((const uint8_t *)from)[i]) * 0x100000001b3ull;
  return hash;
}

bool ls_image_read(struct ls_image *ret, uintptr_t where) {
  static uint8_t page[4096], far_headers[4096];
  struct ls_module *module = &ret->module;
  memset(ret, 0, sizeof *ret);
  Elf64_Ehdr ehdr;
  if (where & 4095 || !ls_peek(page, where, sizeof page))
    return false;
  memcpy(&ehdr, page, sizeof ehdr);
  if (memcmp(ehdr.e_ident, ELFMAG, SELFMAG) || ehdr.e_ident[EI_CLASS] != ELFCLASS64 ||
      (ehdr.e_type != ET_EXEC && ehdr.e_type != ET_DYN) ||
      ehdr.e_phentsize != sizeof(Elf64_Phdr) || !ehdr.e_phnum)
    return false;
  size_t header_bytes = (size_t)ehdr.e_phnum * sizeof(Elf64_Phdr);
  if (header_bytes > sizeof page || ehdr.e_phoff > UINTPTR_MAX / 4)
    return false;
  const uint8_t *headers = page + ehdr.e_phoff;
  if (ehdr.e_phoff + header_bytes > sizeof page) {
    if (!ls_peek(far_headers, where + ehdr.e_phoff, header_bytes))
      return false;
    headers = far_headers;
  }
  uintptr_t low = UINTPTR_MAX, high = 0;
  bool found_base = false, executable = false;
  Elf64_Phdr ph;
  for (unsigned i = 0; i < ehdr.e_phnum; i++) {
    memcpy(&ph, headers + i * sizeof ph, sizeof ph);
    if (ph.p_type != PT_LOAD)
      continue;
    if (ph.p_memsz > UINTPTR_MAX / 4 || ph.p_filesz > ph.p_memsz ||
        ph.p_vaddr > UINTPTR_MAX - ph.p_memsz)
      return false;
    if (!found_base && ph.p_offset < 4096) {
      /* The segment that holds the headers starts at `where`. */
      module->bias = where - (ph.p_vaddr - ph.p_offset);
      ret->first_end = PAGE_OF(module->bias + ph.p_vaddr + ph.p_filesz + 4095);
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
  module->start = PAGE_OF(module->bias + low);
  module->end = module->bias + high;
  if (module->start != where || module->end <= where || module->end - where > UINTPTR_MAX / 4)
    return false;
  memcpy(module->header, &ehdr, sizeof module->header);
  module->page_hash = ls_image_hash(page, sizeof page);
  module->entry = ehdr.e_entry ? module->bias + ehdr.e_entry : 0;
  for (unsigned i = 0; i < ehdr.e_phnum; i++) {
    memcpy(&ph, headers + i * sizeof ph, sizeof ph);
    uintptr_t at = module->bias + ph.p_vaddr;
    if (ph.p_type == PT_LOAD && ret->segment_count < LS_IMAGE_SEGMENTS) {
      uint32_t s = ret->segment_count++;
      ret->segments[s].start = at;
      ret->segments[s].end = at + ph.p_memsz;
      ret->segments[s].flags = ph.p_flags;
      if ((ph.p_flags & (PF_X | PF_R)) == (PF_X | PF_R) && !module->text_high) {
        module->text_low = at;
        module->text_high = at + ph.p_memsz;
      }
    } else if (ph.p_type == PT_GNU_EH_FRAME && at >= module->start && at < module->end &&
               ph.p_memsz <= module->end - at) {
      module->eh_frame_hdr = (const uint8_t *)at;
      module->eh_frame_hdr_size = ph.p_memsz;
    } else if (ph.p_type == PT_DYNAMIC) {
      ret->dynamic = at;
    }
  }
  for (unsigned i = 0; i < ehdr.e_phnum && !module->build_id_bytes; i++) {
    memcpy(&ph, headers + i * sizeof ph, sizeof ph);
    if (ph.p_type == PT_NOTE)
      find_build_id(module, module->bias + ph.p_vaddr, ph.p_filesz);
  }
  struct run run = {0, 0};
  for (uint32_t s = 0; s < ret->segment_count; s++)
    if (ret->segments[s].flags & PF_R)
      note_readable(module, &run, PAGE_OF(ret->segments[s].start), ret->segments[s].end);
  if (!module->read_high)
    module->eh_frame_hdr = NULL;
  return true;
}

bool ls_image_executes(const struct ls_image *image, uintptr_t pc) {
  for (uint32_t s = 0; s < image->segment_count; s++)
    if (image->segments[s].flags & PF_X && pc >= image->segments[s].start &&
        pc < image->segments[s].end)
      return true;
  return false;
}

bool ls_image_check_readable(struct ls_image *image) {
  struct ls_module *module = &image->module;
  if (module->text_high)
    module->text_high = ls_peek_run(module->text_low, module->text_high);
  if (!module->eh_frame_hdr)
    return false;
  module->read_low = PAGE_OF((uintptr_t)module->eh_frame_hdr);
  uintptr_t end = ls_peek_run(module->read_low, module->read_high);
  module->read_high = end;
  if (end < (uintptr_t)module->eh_frame_hdr + module->eh_frame_hdr_size) {
    module->eh_frame_hdr = NULL;
    return false;
  }
  return true;
}

static char *put_hex(char *out, uintptr_t value) {
  unsigned shift = 60;
  while (shift && !(value >> shift))
    shift -= 4;
  for (;; shift -= 4) {
    *out++ = "0123456789abcdef"[value >> shift & 15];
    if (!shift)
      return out;
  }
}

size_t ls_image_path(const struct ls_image *image, char *out, size_t room) {
  static const char deleted[] = " (deleted)";
  const size_t tail = sizeof deleted - 1;
  char link[64] = "/proc/self/map_files/";
  size_t length = sizeof "/proc/self/map_files/" - 1;
  char *end = put_hex(link + length, image->module.start);
  *end++ = '-';
  end = put_hex(end, image->first_end);
  *end = 0;
  long n = ls_readlink(link, out, room);
  if (n <= 0 || *out != '/')
    return 0;
  size_t bytes = (size_t)n;
  if (bytes > tail && !memcmp(out + bytes - tail, deleted, tail))
    bytes -= tail;
  return bytes;
}
