// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Compiles the call frame information of .eh_frame into rules.
 *
 * Source: DWARF 5, section 6.4, and the Linux Standard Base's description of .eh_frame
 * and .eh_frame_hdr. Only what a walk along return addresses needs is kept: the CFA, the
 * return address and the frame pointer. Everything is read within bounds, as the bytes
 * are the program's and may be anything.
 */
#include "rules.h"

#include "dwarf.h"
#include "epilogue.h"
#include "modules.h"
#include "private.h"
#include "sys.h"

#ifdef __x86_64__
enum { REG_FP = 6, REG_SP = 7, REG_RA = 16 };
#else
enum { REG_FP = 29, REG_SP = 31, REG_RA = 30 };
#endif

#define MAX_STATES 8u         /* nested DW_CFA_remember_state */
#define MAX_LINEAR 200000u    /* entries read when there is no search table */
#define ENTRY_CODE_BYTES 512u /* start-up code without unwind information */

struct ls_rule_entry *ls_rule_cache;

/* ---- the cache ---- */

#define CACHE_BYTES (sizeof(struct ls_rule_entry) << LS_RULE_CACHE_BITS)

bool ls_rules_init(void) {
  if (ls_rule_cache)
    return true;
  void *memory = ls_private(CACHE_BYTES);
  if (!memory)
    return false;
  ls_rule_cache = memory;
  return true;
}

static void store(struct ls_rule_entry *entry, uint64_t hash, uint64_t rule) {
  __atomic_store_n(&entry->check, hash ^ rule, __ATOMIC_RELAXED);
  __atomic_store_n(&entry->rule, rule, __ATOMIC_RELAXED);
}

void ls_rules_clear(void) {
  if (!ls_rule_cache)
    return;
  /* Fails for locked memory (mlockall): then by hand. */
  if (ls_madvise(ls_rule_cache, CACHE_BYTES, 4 /* MADV_DONTNEED */) == 0)
    return;
  for (uint32_t i = 0; i < 1u << LS_RULE_CACHE_BITS; i++)
    store(&ls_rule_cache[i], 0, 0);
}

void ls_rules_reset_after_fork(void) { ls_rules_clear(); }

/* ---- bounded reading ---- */

/* Reading past `end` sets `bad` and gives zeroes. */
struct cursor {
  const uint8_t *at, *end;
  bool bad;
};

static const uint8_t *take(struct cursor *cursor, size_t bytes) {
  if ((size_t)(cursor->end - cursor->at) < bytes) {
    cursor->bad = true;
    cursor->at = cursor->end;
    return NULL;
  }
  const uint8_t *at = cursor->at;
  cursor->at += bytes;
  return at;
}

/* The memory is at least as aligned as the file made it; memcpy says nothing of it. */
#define TAKE(type, cursor)                    \
  ({                                          \
    type value_ = 0;                          \
    const uint8_t *at_ = take(cursor, sizeof value_); \
    if (at_)                                  \
      __builtin_memcpy(&value_, at_, sizeof value_); \
    value_;                                   \
  })

static uint64_t take_uleb(struct cursor *cursor) {
  uint64_t value = 0;
  for (unsigned shift = 0;; shift += 7) {
    uint8_t byte = TAKE(uint8_t, cursor);
    if (shift < 64)
      value |= (uint64_t)(byte & 0x7f) << shift;
    if (!(byte & 0x80))
      return value;
  }
}

static int64_t take_sleb(struct cursor *cursor) {
  uint64_t value = 0;
  unsigned shift = 0;
  uint8_t byte;
  do {
    byte = TAKE(uint8_t, cursor);
    if (shift < 64)
      value |= (uint64_t)(byte & 0x7f) << shift;
    shift += 7;
  } while (byte & 0x80);
  if (shift < 64 && byte & 0x40)
    value |= ~0ull << shift;
  return (int64_t)value;
}

/* A DW_EH_PE encoded pointer. `data_base` serves the datarel encodings. */
static uintptr_t take_encoded(struct cursor *cursor, uint8_t encoding, uintptr_t data_base) {
  if (encoding == DW_EH_PE_omit)
    return 0;
  uintptr_t here = (uintptr_t)cursor->at, value;
  switch (encoding & DW_EH_PE_FORMAT) {
  case DW_EH_PE_absptr:
  case DW_EH_PE_udata8:
  case DW_EH_PE_sdata8:
    value = TAKE(uint64_t, cursor);
    break;
  case DW_EH_PE_uleb128:
    value = take_uleb(cursor);
    break;
  case DW_EH_PE_udata2:
    value = TAKE(uint16_t, cursor);
    break;
  case DW_EH_PE_udata4:
    value = TAKE(uint32_t, cursor);
    break;
  case DW_EH_PE_sleb128:
    value = (uintptr_t)take_sleb(cursor);
    break;
  case DW_EH_PE_sdata2:
    value = (uintptr_t)(intptr_t)TAKE(int16_t, cursor);
    break;
  case DW_EH_PE_sdata4:
    value = (uintptr_t)(intptr_t)TAKE(int32_t, cursor);
    break;
  default:
    cursor->bad = true;
    return 0;
  }
  switch (encoding & DW_EH_PE_BASE) {
  case DW_EH_PE_absptr:
    return value;
  case DW_EH_PE_pcrel:
    return value + here;
  case DW_EH_PE_datarel:
    return value + data_base;
  default: /* textrel, funcrel, aligned: nobody emits them here */
    cursor->bad = true;
    return 0;
  }
}

static bool readable(const struct ls_module *module, uintptr_t at, size_t bytes) {
  return at >= module->read_low && at <= module->read_high && bytes <= module->read_high - at;
}

/* ---- CIE and FDE ---- */

struct cie {
  uint64_t code_align;
  int64_t data_align;
  uint64_t ra_register;
  uint8_t fde_encoding;
  bool has_data; /* 'z' */
  bool signal;   /* 'S' */
  struct cursor program;
};

struct fde {
  uintptr_t start, end; /* code addresses */
  struct cie cie;
  struct cursor program;
};

/* The entry at `at`: its content after the length field. */
static bool open_entry(const struct ls_module *module, uintptr_t at, struct cursor *ret) {
  if (!readable(module, at, 4))
    return false;
  struct cursor cursor = {(const uint8_t *)at, (const uint8_t *)module->read_high, false};
  uint64_t length = TAKE(uint32_t, &cursor);
  if (length == 0xffffffffu)
    length = TAKE(uint64_t, &cursor);
  if (cursor.bad || length < 4 || length > (uint64_t)(cursor.end - cursor.at))
    return false;
  cursor.end = cursor.at + length;
  *ret = cursor;
  return true;
}

static bool read_cie(const struct ls_module *module, uintptr_t at, struct cie *ret) {
  struct cursor cursor;
  if (!open_entry(module, at, &cursor) || TAKE(uint32_t, &cursor) != 0)
    return false;
  uint8_t version = TAKE(uint8_t, &cursor);
  if (version != 1 && version != 3 && version != 4)
    return false;
  char augmentation[12];
  unsigned count = 0;
  for (;;) {
    char c = TAKE(char, &cursor);
    if (!c)
      break;
    if (count == sizeof augmentation)
      return false;
    augmentation[count++] = c;
  }
  if (version == 4 && (TAKE(uint8_t, &cursor) != sizeof(uintptr_t) || TAKE(uint8_t, &cursor) != 0))
    return false;
  *ret = (struct cie){.code_align = take_uleb(&cursor), .data_align = 0, .fde_encoding = 0};
  ret->data_align = take_sleb(&cursor);
  ret->ra_register = version == 1 ? TAKE(uint8_t, &cursor) : take_uleb(&cursor);
  if (count && augmentation[0] != 'z')
    return false; /* the pre-2000 "eh" form */
  if (count) {
    ret->has_data = true;
    uint64_t bytes = take_uleb(&cursor);
    if (cursor.bad || bytes > (uint64_t)(cursor.end - cursor.at))
      return false;
    struct cursor data = {cursor.at, cursor.at + bytes, false};
    cursor.at += bytes;
    for (unsigned i = 1; i < count; i++) {
      switch (augmentation[i]) {
      case 'R':
        ret->fde_encoding = TAKE(uint8_t, &data);
        break;
      case 'L':
        TAKE(uint8_t, &data);
        break;
      case 'P': {
        uint8_t encoding = TAKE(uint8_t, &data);
        take_encoded(&data, encoding & DW_EH_PE_FORMAT, 0);
        break;
      }
      case 'S':
        ret->signal = true;
        break;
      case 'B': /* aarch64: return addresses are signed with the B key */
      case 'G': /* aarch64: the frame is tagged */
        break;
      default:
        return false;
      }
    }
    if (data.bad)
      return false;
  }
  ret->program = cursor;
  return !cursor.bad && ret->ra_register == REG_RA;
}

/* The range of the FDE at `at`; the rest of `ret` only when it covers `target`. */
static bool read_fde(const struct ls_module *module, uintptr_t at, uintptr_t target,
                     struct fde *ret) {
  struct cursor cursor;
  if (!open_entry(module, at, &cursor))
    return false;
  uintptr_t back_from = (uintptr_t)cursor.at;
  uint32_t back = TAKE(uint32_t, &cursor);
  if (!back || cursor.bad || !read_cie(module, back_from - back, &ret->cie))
    return false;
  ret->start = take_encoded(&cursor, ret->cie.fde_encoding, 0);
  uintptr_t bytes = take_encoded(&cursor, ret->cie.fde_encoding & DW_EH_PE_FORMAT, 0);
  ret->end = ret->start + bytes;
  if (cursor.bad || ret->cie.fde_encoding & DW_EH_PE_indirect || target < ret->start || target >= ret->end)
    return false;
  if (ret->cie.has_data) {
    uint64_t skip = take_uleb(&cursor);
    if (cursor.bad || skip > (uint64_t)(cursor.end - cursor.at))
      return false;
    cursor.at += skip;
  }
  ret->program = cursor;
  return true;
}

/* No search table: read .eh_frame from its start. */
static bool find_fde_linear(const struct ls_module *module, uintptr_t at, uintptr_t target,
                            struct fde *ret) {
  for (uint32_t i = 0; i < MAX_LINEAR; i++) {
    struct cursor cursor;
    if (!open_entry(module, at, &cursor))
      return false;
    if (read_fde(module, at, target, ret))
      return true;
    at = (uintptr_t)cursor.end;
  }
  return false;
}

/* False: no unwind information covers `target`. */
static bool find_fde(const struct ls_module *module, uintptr_t target, struct fde *ret) {
  if (!module->eh_frame_hdr || module->eh_frame_hdr_size < 4)
    return false;
  uintptr_t base = (uintptr_t)module->eh_frame_hdr;
  struct cursor hdr = {module->eh_frame_hdr, module->eh_frame_hdr + module->eh_frame_hdr_size, false};
  uint8_t version = TAKE(uint8_t, &hdr);
  uint8_t frame_encoding = TAKE(uint8_t, &hdr);
  uint8_t count_encoding = TAKE(uint8_t, &hdr);
  uint8_t table_encoding = TAKE(uint8_t, &hdr);
  if (version != 1)
    return false;
  uintptr_t eh_frame = take_encoded(&hdr, frame_encoding, base);
  uint64_t count = take_encoded(&hdr, count_encoding, base);
  if (hdr.bad)
    return false;
  size_t width = 0;
  if (count_encoding != DW_EH_PE_omit && table_encoding == (DW_EH_PE_datarel | DW_EH_PE_sdata4))
    width = 4;
  else if (count_encoding != DW_EH_PE_omit && table_encoding == (DW_EH_PE_datarel | DW_EH_PE_sdata8))
    width = 8;
  if (!width)
    return frame_encoding != DW_EH_PE_omit && find_fde_linear(module, eh_frame, target, ret);
  if (count > (uint64_t)(hdr.end - hdr.at) / (2 * width))
    return false;
  /* The last row that starts at or before the target. */
  const uint8_t *table = hdr.at;
  uint64_t low = 0, high = count;
  while (low < high) {
    uint64_t middle = low + (high - low) / 2;
    struct cursor row = {table + middle * 2 * width, hdr.end, false};
    if (take_encoded(&row, table_encoding, base) <= target)
      low = middle + 1;
    else
      high = middle;
  }
  if (!low)
    return false;
  struct cursor row = {table + (low - 1) * 2 * width + width, hdr.end, false};
  return read_fde(module, take_encoded(&row, table_encoding, base), target, ret);
}

/* ---- the register rules of one row ---- */

enum how {
  HOW_SAME = 0,   /* also: nothing said */
  HOW_UNDEFINED,
  HOW_OFFSET,     /* at CFA + offset */
  HOW_FP_SLOT,    /* at fp + offset */
  HOW_OTHER,      /* anything else that is legal */
};

struct saved {
  enum how how;
  int64_t offset;
};

enum cfa_how { CFA_NONE = 0, CFA_REGISTER, CFA_FP_DEREF };

struct row {
  enum cfa_how cfa_how;
  uint64_t cfa_register;
  int64_t cfa_offset;
  struct saved ra, fp;
};

struct machine {
  const struct cie *cie;
  uintptr_t location, target;
  struct row row, initial;
  struct row stack[MAX_STATES];
  unsigned depth;
};

static struct saved *column(struct row *row, uint64_t number) {
  return number == REG_RA ? &row->ra : number == REG_FP ? &row->fp : NULL;
}

static void set(struct machine *machine, uint64_t number, enum how how, int64_t offset) {
  struct saved *saved = column(&machine->row, number);
  if (saved)
    *saved = (struct saved){how, offset};
}

/* "DW_OP_breg<fp> offset" and nothing more; with `deref`, followed by DW_OP_deref. */
static bool is_fp_based(struct cursor expression, bool deref, int64_t *ret_offset) {
  if (TAKE(uint8_t, &expression) != DW_OP_breg0 + REG_FP)
    return false;
  *ret_offset = take_sleb(&expression);
  if (deref && TAKE(uint8_t, &expression) != DW_OP_deref)
    return false;
  return !expression.bad && expression.at == expression.end;
}

/* The CFA in an x86-64 procedure linkage table: one word more after the push, which ends at
 * byte `lit` of each 16: sp + 8 + (((pc & 15) >= lit) << 3). */
static bool is_plt(struct cursor expression, uintptr_t pc, int64_t *ret_offset) {
  static const uint8_t text[] = {
      DW_OP_breg0 + 7, 8, DW_OP_breg0 + 16, 0,          DW_OP_lit0 + 15, DW_OP_and, DW_OP_lit0,
      DW_OP_ge,        DW_OP_lit0 + 3,      DW_OP_shl, DW_OP_plus};
  if (REG_SP != 7 || (size_t)(expression.end - expression.at) != sizeof text)
    return false;
  uint8_t literal = 0;
  for (unsigned i = 0; i < sizeof text; i++) {
    if (i == 6)
      literal = (uint8_t)(expression.at[i] - text[i]);
    else if (expression.at[i] != text[i])
      return false;
  }
  *ret_offset = 8 + (literal < 16 && (pc & 15) >= literal ? 8 : 0);
  return literal < 16;
}

static struct cursor take_block(struct cursor *cursor) {
  uint64_t bytes = take_uleb(cursor);
  const uint8_t *at = bytes <= (uint64_t)(cursor->end - cursor->at) ? take(cursor, bytes) : NULL;
  if (!at) {
    cursor->bad = true;
    return (struct cursor){cursor->end, cursor->end, true};
  }
  return (struct cursor){at, at + bytes, false};
}

/* Execute until the row of the target is complete. False: not understood. */
static bool execute(struct machine *machine, struct cursor program) {
  const struct cie *cie = machine->cie;
  struct row *row = &machine->row;
  while (program.at < program.end && !program.bad) {
    uint8_t opcode = TAKE(uint8_t, &program);
    uint8_t low = opcode & ~DW_CFA_PRIMARY;
    uint64_t advance = 0, number;
    int64_t offset;
    switch (opcode & DW_CFA_PRIMARY ? opcode & DW_CFA_PRIMARY : opcode) {
    case DW_CFA_advance_loc:
      advance = low;
      break;
    case DW_CFA_offset:
      offset = (int64_t)take_uleb(&program);
      set(machine, low, HOW_OFFSET, offset * cie->data_align);
      break;
    case DW_CFA_restore:
    case DW_CFA_restore_extended: {
      number = opcode == DW_CFA_restore_extended ? take_uleb(&program) : low;
      struct saved *saved = column(row, number);
      if (saved)
        *saved = *column(&machine->initial, number);
      break;
    }
    case DW_CFA_nop:
    case DW_CFA_AARCH64_negate_ra_state: /* we strip the signature whether or not it is there */
      break;
    case DW_CFA_AARCH64_negate_ra_state_with_pc:
      break;
    case DW_CFA_set_loc:
      machine->location = take_encoded(&program, cie->fde_encoding, 0);
      if (machine->location > machine->target)
        return !program.bad;
      break;
    case DW_CFA_advance_loc1:
      advance = TAKE(uint8_t, &program);
      break;
    case DW_CFA_advance_loc2:
      advance = TAKE(uint16_t, &program);
      break;
    case DW_CFA_advance_loc4:
      advance = TAKE(uint32_t, &program);
      break;
    case DW_CFA_offset_extended:
      number = take_uleb(&program);
      offset = (int64_t)take_uleb(&program);
      set(machine, number, HOW_OFFSET, offset * cie->data_align);
      break;
    case DW_CFA_undefined:
      set(machine, take_uleb(&program), HOW_UNDEFINED, 0);
      break;
    case DW_CFA_same_value:
      set(machine, take_uleb(&program), HOW_SAME, 0);
      break;
    case DW_CFA_register:
      number = take_uleb(&program);
      take_uleb(&program);
      set(machine, number, HOW_OTHER, 0);
      break;
    case DW_CFA_remember_state:
      if (machine->depth == MAX_STATES)
        return false;
      machine->stack[machine->depth++] = *row;
      break;
    case DW_CFA_restore_state:
      if (!machine->depth)
        return false;
      *row = machine->stack[--machine->depth];
      break;
    case DW_CFA_def_cfa:
      row->cfa_register = take_uleb(&program);
      row->cfa_offset = (int64_t)take_uleb(&program);
      row->cfa_how = CFA_REGISTER;
      break;
    case DW_CFA_def_cfa_sf:
      row->cfa_register = take_uleb(&program);
      row->cfa_offset = take_sleb(&program) * cie->data_align;
      row->cfa_how = CFA_REGISTER;
      break;
    case DW_CFA_def_cfa_register:
      row->cfa_register = take_uleb(&program);
      if (row->cfa_how != CFA_REGISTER)
        return false;
      break;
    case DW_CFA_def_cfa_offset:
      row->cfa_offset = (int64_t)take_uleb(&program);
      if (row->cfa_how != CFA_REGISTER)
        return false;
      break;
    case DW_CFA_def_cfa_offset_sf:
      row->cfa_offset = take_sleb(&program) * cie->data_align;
      if (row->cfa_how != CFA_REGISTER)
        return false;
      break;
    case DW_CFA_def_cfa_expression: {
      struct cursor expression = take_block(&program);
      row->cfa_register = REG_SP;
      row->cfa_how = is_fp_based(expression, true, &row->cfa_offset)                ? CFA_FP_DEREF
                     : is_plt(expression, machine->target, &row->cfa_offset) ? CFA_REGISTER
                                                                             : CFA_NONE;
      break;
    }
    case DW_CFA_expression:
      number = take_uleb(&program);
      if (is_fp_based(take_block(&program), false, &offset))
        set(machine, number, HOW_FP_SLOT, offset);
      else
        set(machine, number, HOW_OTHER, 0);
      break;
    case DW_CFA_offset_extended_sf:
      number = take_uleb(&program);
      set(machine, number, HOW_OFFSET, take_sleb(&program) * cie->data_align);
      break;
    case DW_CFA_val_offset:
      number = take_uleb(&program);
      take_uleb(&program);
      set(machine, number, HOW_OTHER, 0);
      break;
    case DW_CFA_val_offset_sf:
      number = take_uleb(&program);
      take_sleb(&program);
      set(machine, number, HOW_OTHER, 0);
      break;
    case DW_CFA_val_expression:
      number = take_uleb(&program);
      take_block(&program);
      set(machine, number, HOW_OTHER, 0);
      break;
    case DW_CFA_MIPS_advance_loc8:
      advance = TAKE(uint64_t, &program);
      break;
    case DW_CFA_GNU_args_size: /* matters to landing pads only */
      take_uleb(&program);
      break;
    case DW_CFA_GNU_negative_offset_extended:
      number = take_uleb(&program);
      offset = (int64_t)take_uleb(&program);
      set(machine, number, HOW_OFFSET, -offset * cie->data_align);
      break;
    default:
      return false;
    }
    if (advance) {
      machine->location += advance * cie->code_align;
      if (machine->location > machine->target)
        return !program.bad;
    }
  }
  return !program.bad;
}

/* ---- from row to rule ---- */

static uint64_t pack(enum ls_rule_kind kind, uint16_t module, int64_t cfa, int64_t ra, int64_t fp) {
  return (uint64_t)kind << 60 | (uint64_t)(module & 0x1fff) << 47 |
         ((uint64_t)cfa & ((1u << LS_RULE_CFA_BITS) - 1)) << 27 |
         ((uint64_t)ra & ((1u << LS_RULE_RA_BITS) - 1)) << 12 |
         ((uint64_t)fp & ((1u << LS_RULE_FP_BITS) - 1));
}

static bool fits(int64_t bytes, unsigned bits, int64_t *ret_words) {
  *ret_words = bytes >> 3;
  return !(bytes & 7) && *ret_words > -(1ll << (bits - 1)) && *ret_words < 1ll << (bits - 1);
}

static uint64_t rule_of_row(const struct row *row, uint16_t module) {
  uint64_t none = pack(LS_RULE_NONE, module, 0, 0, LS_RULE_FP_SAME);
  if (row->ra.how == HOW_UNDEFINED)
    return pack(LS_RULE_END, module, 0, 0, LS_RULE_FP_SAME);
  enum ls_rule_kind kind;
  if (row->cfa_how == CFA_FP_DEREF)
    kind = LS_RULE_FP_DEREF;
  else if (row->cfa_how == CFA_REGISTER && row->cfa_register == REG_SP)
    kind = LS_RULE_SP;
  else if (row->cfa_how == CFA_REGISTER && row->cfa_register == REG_FP)
    kind = LS_RULE_FP;
  else
    return none;
  int64_t cfa, ra = 0, fp = LS_RULE_FP_SAME;
  if (!fits(row->cfa_offset, LS_RULE_CFA_BITS, &cfa))
    return none;
  if (row->ra.how == HOW_SAME && REG_RA == 30 && kind == LS_RULE_SP) {
    kind = LS_RULE_LINK;
  } else if (row->ra.how != HOW_OFFSET || !fits(row->ra.offset, LS_RULE_RA_BITS, &ra)) {
    return none;
  }
  if (row->fp.how == HOW_OFFSET && kind != LS_RULE_FP_DEREF) {
    int64_t from = REG_RA == 30 ? row->ra.offset : 0;
    if (!fits(row->fp.offset - from, LS_RULE_FP_BITS, &fp))
      return none;
  } else if (row->fp.how == HOW_FP_SLOT && kind == LS_RULE_FP_DEREF) {
    if (!fits(row->fp.offset, LS_RULE_FP_BITS, &fp))
      return none;
  } else if (row->fp.how != HOW_SAME && row->fp.how != HOW_UNDEFINED) {
    return none;
  }
  return pack(kind, module, cfa, ra, fp);
}

/* The instructions a signal handler returns to, when nothing describes them. */
static bool is_signal_trampoline(const uint8_t *code) {
#ifdef __x86_64__
  /* mov $15, %rax (or %eax); syscall */
  static const uint8_t with_rax[8] = {0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f};
  static const uint8_t with_eax[7] = {0xb8, 0x0f, 0, 0, 0, 0x0f, 0x05};
  if (!__builtin_memcmp(code, with_eax, sizeof with_eax))
    return true;
  return !__builtin_memcmp(code, with_rax, sizeof with_rax) && code[8] == 0x05;
#else
  /* mov x8, #139; svc #0 */
  static const uint8_t code_bytes[8] = {0x68, 0x11, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4};
  return !__builtin_memcmp(code, code_bytes, sizeof code_bytes);
#endif
}

enum { TRAMPOLINE_BYTES = 9 };

#ifdef __aarch64__
/* In a procedure linkage table, which has no unwind information: the return address is in
 * x30 and the stack as the caller left it, but for the 16 bytes that the first stub pushes. */
static bool is_plt_code(const struct ls_module *module, uintptr_t pc, int64_t *ret_cfa) {
  enum { BR_X17 = 0xd61f0220u, PUSH_X16_X30 = 0xa9bf7bf0u, INSTRUCTIONS = 6 };
  if (pc & 3 || pc < module->text_low || module->text_high < 4 * INSTRUCTIONS + 4 ||
      pc > module->text_high - 4 * INSTRUCTIONS)
    return false;
  const uint32_t *code = (const uint32_t *)pc;
  unsigned ahead = 0;
  while (ahead < INSTRUCTIONS && code[ahead] != BR_X17)
    ahead++;
  if (ahead == INSTRUCTIONS)
    return false;
  *ret_cfa = 0;
  for (unsigned back = 1; back < INSTRUCTIONS && pc - 4 * back >= module->text_low; back++) {
    if (code[-(int)back] == BR_X17)
      break;
    if (code[-(int)back] == PUSH_X16_X30)
      *ret_cfa = 2;
  }
  return true;
}
#endif

static uint64_t compile_outside(uintptr_t pc) {
  bool trampoline = pc < UINTPTR_MAX - 16 && ls_is_readable((const void *)(pc & ~(uintptr_t)7)) &&
                    ls_is_readable((const void *)((pc + TRAMPOLINE_BYTES - 1) & ~(uintptr_t)7)) &&
                    is_signal_trampoline((const uint8_t *)pc);
  return pack(trampoline ? LS_RULE_SIGNAL : LS_RULE_NONE, 0, 0, 0, LS_RULE_FP_SAME);
}

/* Behind a call in code that nothing describes. */
static uint64_t compile_epilogue(const struct ls_module *module, uintptr_t pc) {
  const uint64_t none = pack(LS_RULE_NONE, module->index, 0, 0, LS_RULE_FP_SAME);
  struct ls_epilogue found;
  int64_t first, second;
  if (pc < module->text_low || pc >= module->text_high ||
      !ls_epilogue_read((const uint8_t *)pc, module->text_high - pc, &found))
    return none;
  if (found.kind == LS_EPILOGUE_FRAME) {
    bool fit = fits(found.cfa, LS_RULE_CFA_BITS, &first) &&
               fits(found.fp_at - found.cfa, LS_RULE_FP_BITS, &second);
    return fit ? pack(LS_RULE_SP, module->index, first, -1, second) : none;
  }
  if (!fits(found.depth_at, LS_RULE_CFA_BITS, &first) || !fits(found.g_at, LS_RULE_RA_BITS, &second))
    return none;
  return pack(LS_RULE_SWITCH, module->index, first, second,
              (found.kind == LS_EPILOGUE_GOROUTINE ? LS_SWITCH_GOROUTINE : 0) |
                  (found.pops_fp ? LS_SWITCH_POPS_FP : 0));
}

static uint64_t compile_in(const struct ls_module *module, uintptr_t pc, uintptr_t target) {
  struct fde fde;
  if (!find_fde(module, target, &fde)) {
    enum ls_rule_kind kind = LS_RULE_NONE;
    if (pc >= module->text_low && pc < module->text_high &&
        module->text_high - pc >= TRAMPOLINE_BYTES && is_signal_trampoline((const uint8_t *)pc))
      kind = LS_RULE_SIGNAL;
    else if (module->entry && pc >= module->entry && pc - module->entry < ENTRY_CODE_BYTES)
      kind = LS_RULE_END;
#ifdef __aarch64__
    int64_t cfa;
    if (kind == LS_RULE_NONE && pc == target && is_plt_code(module, pc, &cfa))
      return pack(LS_RULE_LINK, module->index, cfa, 0, LS_RULE_FP_SAME);
#endif
    if (kind == LS_RULE_NONE && pc != target)
      return compile_epilogue(module, pc);
    return pack(kind, module->index, 0, 0, LS_RULE_FP_SAME);
  }
  if (fde.cie.signal)
    return pack(LS_RULE_SIGNAL, module->index, 0, 0, LS_RULE_FP_SAME);
  struct machine machine;
  machine.cie = &fde.cie;
  machine.depth = 0;
  machine.location = 0;
  machine.target = UINTPTR_MAX;
  machine.row = machine.initial = (struct row){0};
  if (!execute(&machine, fde.cie.program))
    return pack(LS_RULE_NONE, module->index, 0, 0, LS_RULE_FP_SAME);
  machine.initial = machine.row;
  machine.location = fde.start;
  machine.target = target;
  if (!execute(&machine, fde.program))
    return pack(LS_RULE_NONE, module->index, 0, 0, LS_RULE_FP_SAME);
  return rule_of_row(&machine.row, module->index);
}

uint64_t ls_rule_compile(uintptr_t pc, bool exact) {
  uint64_t hash = ls_rule_hash(pc, exact);
  struct ls_rule_entry *entry = &ls_rule_cache[hash >> (64 - LS_RULE_CACHE_BITS)];
  uint64_t kept = __atomic_load_n(&entry->rule, __ATOMIC_RELAXED);
  if ((__atomic_load_n(&entry->check, __ATOMIC_RELAXED) ^ kept) == hash && ls_module_unknown_is_fresh())
    return kept;
  /* A return address may be one past the end of its function. */
  uintptr_t target = exact ? pc : pc - 1;
  uint32_t epoch = ls_module_epoch();
  bool certain;
  const struct ls_module *module = ls_module_find_or_refresh(target, &certain);
  if (ls_module_epoch() != epoch) {
    /* Somewhere a module went or came: what is cached may be of it. */
    ls_rules_clear();
    epoch = ls_module_epoch();
  }
  uint64_t rule = module ? compile_in(module, pc, target) : compile_outside(pc);
  if (!certain)
    return rule;
  store(entry, hash, rule);
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  if (ls_module_epoch() != epoch)
    store(entry, 0, 0); /* stored too late to be seen by whoever cleared */
  return rule;
}
