// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * How to leave a frame: one 64-bit rule for each return address, compiled from .eh_frame
 * once and cached without locks.
 */
#ifndef LEAKSCOPE_RULES_H
#define LEAKSCOPE_RULES_H

#include <stdbool.h>
#include <stdint.h>

#pragma GCC visibility push(hidden)

enum ls_rule_kind {
  LS_RULE_NONE = 0,     /* nothing known: try the frame pointer */
  LS_RULE_SP = 1,       /* CFA = sp + cfa_offset */
  LS_RULE_FP = 2,       /* CFA = fp + cfa_offset */
  LS_RULE_FP_DEREF = 3, /* CFA = *(fp + cfa_offset): realigned stacks */
  LS_RULE_SIGNAL = 4,   /* sp, fp, pc at LS_SIGNAL_*_OFFSET from sp; pc is exact */
  LS_RULE_END = 5,      /* the outermost frame */
  LS_RULE_LINK = 6,     /* aarch64: CFA = sp + cfa_offset, return address still in x30. Only
                         * true for the frame a signal interrupted: x30 is at
                         * LS_SIGNAL_LINK_OFFSET from the signal frame's sp */
  LS_RULE_SWITCH = 7,   /* the caller is on another stack, often a goroutine's: ls_rule_switch() */
};

/* Bit layout: kind 60..63, module 47..59, CFA offset 27..46, RA offset 12..26, FP offset
 * 0..11. Offsets are signed and in words of 8 bytes. On aarch64 the FP field counts from
 * the RA slot, as the two registers are stored as a pair at the far end of the frame. */
#define LS_RULE_CFA_BITS 20
#define LS_RULE_RA_BITS 15
#define LS_RULE_FP_BITS 12
#define LS_RULE_FP_SAME (-(1 << (LS_RULE_FP_BITS - 1))) /* the register holds the caller's value */

static inline enum ls_rule_kind ls_rule_kind(uint64_t rule) {
  return (enum ls_rule_kind)(rule >> 60);
}
/* Index + 1 of the module in the recording, 0: none. */
static inline uint16_t ls_rule_module(uint64_t rule) { return (uint16_t)(rule >> 47 & 0x1fff); }
/* Bytes. */
static inline intptr_t ls_rule_cfa_offset(uint64_t rule) {
  return (intptr_t)((int64_t)(rule << 17) >> 44) * 8;
}
/* Bytes from the CFA to the slot of the return address. */
static inline intptr_t ls_rule_ra_offset(uint64_t rule) {
  return (intptr_t)((int64_t)(rule << 37) >> 49) * 8;
}
static inline bool ls_rule_saves_fp(uint64_t rule) { return (rule & 0xfff) != 0x800; }
/* Bytes from the CFA (LS_RULE_FP_DEREF: from fp) to the slot of the caller's frame pointer.
 * Only when ls_rule_saves_fp(). */
static inline intptr_t ls_rule_fp_offset(uint64_t rule) {
  intptr_t offset = (intptr_t)((int64_t)(rule << 52) >> 52) * 8;
#ifdef __aarch64__
  if (ls_rule_kind(rule) != LS_RULE_FP_DEREF)
    offset += ls_rule_ra_offset(rule);
#endif
  return offset;
}

/* Of LS_RULE_SWITCH, in bytes from sp. */
struct ls_rule_switch {
  intptr_t depth_at; /* of the caller's stack pointer; in a goroutine, below its stack's end */
  intptr_t g_at;     /* of the goroutine, whose first words are its stack's bounds */
  bool goroutine;
  bool pops_fp;      /* the frame pointer lies there, before the return address */
};
enum { LS_SWITCH_POPS_FP = 1, LS_SWITCH_GOROUTINE = 2 };
static inline struct ls_rule_switch ls_rule_switch(uint64_t rule) {
  return (struct ls_rule_switch){.depth_at = ls_rule_cfa_offset(rule),
                                 .g_at = ls_rule_ra_offset(rule),
                                 .goroutine = rule & LS_SWITCH_GOROUTINE,
                                 .pops_fp = rule & LS_SWITCH_POPS_FP};
}

/* Where the kernel stores the interrupted registers, in bytes from the sp in the signal
 * trampoline. Part of the kernel's ABI. */
#ifdef __x86_64__
#define LS_SIGNAL_FP_OFFSET 120
#define LS_SIGNAL_SP_OFFSET 160
#define LS_SIGNAL_PC_OFFSET 168
#else
#define LS_SIGNAL_FP_OFFSET 544
#define LS_SIGNAL_LINK_OFFSET 552
#define LS_SIGNAL_SP_OFFSET 560
#define LS_SIGNAL_PC_OFFSET 568
#endif

/* A cache entry is true when check ^ rule is the hash of the wanted key, so a torn pair
 * from two writers cannot be mistaken for a rule. */
#define LS_RULE_CACHE_BITS 14
struct ls_rule_entry {
  uint64_t check;
  uint64_t rule;
};
extern struct ls_rule_entry *ls_rule_cache;

static inline uint64_t ls_rule_hash(uintptr_t pc, bool exact) {
  return ((uint64_t)pc << 1 | exact) * 0x9E3779B97F4A7C15ull;
}

/* Get the memory. False: none to be had. */
bool ls_rules_init(void);

/* Compile and cache the rule; may look for new objects. */
uint64_t ls_rule_compile(uintptr_t pc, bool exact);

/* The rule of a return address, or of the instruction itself when `exact` (a signal
 * interrupted there). */
static inline uint64_t ls_rule_lookup(uintptr_t pc, bool exact) {
  uint64_t hash = ls_rule_hash(pc, exact);
  struct ls_rule_entry *entry = &ls_rule_cache[hash >> (64 - LS_RULE_CACHE_BITS)];
  uint64_t rule = __atomic_load_n(&entry->rule, __ATOMIC_RELAXED);
  uint64_t check = __atomic_load_n(&entry->check, __ATOMIC_RELAXED);
  /* "Nothing known, in no module" may change when a module is loaded: look closer. */
  if (__builtin_expect((check ^ rule) == hash && rule >> 47, 1))
    return rule;
  return ls_rule_compile(pc, exact);
}

/* Forget every rule: a module vanished. */
void ls_rules_clear(void);
/* In the child of a fork: the module numbers in the rules are the parent's. */
void ls_rules_reset_after_fork(void);

/* The address without its pointer authentication code. */
static inline void *ls_strip_pac(void *address) {
#ifdef __aarch64__
  register void *x30 __asm__("x30") = address;
  __asm__("hint #7" /* xpaclri, a no-op on older processors */ : "+r"(x30));
  return x30;
#else
  return address;
#endif
}

#pragma GCC visibility pop

#endif
