// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Follows the code behind a return address until it returns, with what each register holds in
 * terms of the stack pointer and frame pointer there. Only straight code of the few instructions
 * that put registers back is understood, so whatever is understood is what will happen.
 *
 * Source: Intel's manual, volume 2, for the encodings; runtime.asmcgocall and crosscall2 in Go's
 * src/runtime for what they are used for. A g begins with its stack's bounds, low and high.
 */
#include "epilogue.h"

#ifdef __x86_64__

#define MAX_INSTRUCTIONS 64u
enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R12 = 12, R13, R14, R15, REGISTERS };

/* Offsets are in bytes. sp and fp are those at the return address. */
struct value {
  enum { UNKNOWN, FROM_SP, FROM_FP, WORD, HIGH, GOROUTINE, BELOW_SP } is;
  /* FROM_SP: sp + plus. FROM_FP: fp + plus. WORD: *(sp + at) + plus. HIGH: the stack.hi of the g
   * at *(sp + at). GOROUTINE: that minus *(sp + less), plus `plus`. BELOW_SP: what a switched
   * stack pointer points at, `plus` bytes above where it was first. */
  int32_t at, less, plus;
};

struct state {
  struct value reg[REGISTERS];
  const uint8_t *at, *end;
};

static bool byte(struct state *state, uint8_t *ret) {
  if (state->at == state->end)
    return false;
  *ret = *state->at++;
  return true;
}

static bool number(struct state *state, unsigned bytes, int32_t *ret) {
  if ((size_t)(state->end - state->at) < bytes)
    return false;
  *ret = 0;
  if (bytes == 1)
    *ret = (int8_t)*state->at;
  else if (bytes)
    __builtin_memcpy(ret, state->at, sizeof *ret);
  state->at += bytes;
  /* Frames are small; no sum of a few such numbers overflows. */
  return *ret > -(1 << 20) && *ret < 1 << 20;
}

/* The operands that follow an opcode. */
struct operands {
  unsigned reg, base; /* base: the register itself where it is no memory, REGISTERS: none */
  int32_t offset;
  bool memory;
};

static bool operands(struct state *state, uint8_t rex, struct operands *ret) {
  uint8_t modrm, sib;
  if (!byte(state, &modrm))
    return false;
  unsigned mod = modrm >> 6, rm = modrm & 7;
  *ret = (struct operands){.reg = (modrm >> 3 & 7) | (rex & 4) << 1, .memory = mod != 3};
  ret->base = rm | (rex & 1) << 3;
  if (mod == 3)
    return true;
  if (rm == 4) {
    if (!byte(state, &sib))
      return false;
    if ((sib >> 3 & 7) != 4 || rex & 2)
      return false; /* an index */
    ret->base = (sib & 7) | (rex & 1) << 3;
    rm = sib & 7;
  }
  if (mod == 0 && rm == 5) { /* no base; a thread's own words are reached so */
    ret->base = REGISTERS;
    state->at += state->end - state->at < 4 ? state->end - state->at : 4;
    return true;
  }
  return number(state, mod == 1 ? 1 : mod == 2 ? 4 : 0, &ret->offset);
}

/* What the word at `value` + `offset` is. */
static struct value load(struct value value, int32_t offset) {
  int32_t at = value.plus + offset;
  switch (value.is) {
  case FROM_SP:
    return (struct value){.is = WORD, .at = at};
  case WORD:
    if (at == 8 && !value.plus)
      return (struct value){.is = HIGH, .at = value.at};
    return (struct value){.is = BELOW_SP, .at = value.at, .less = -1, .plus = at};
  case GOROUTINE:
    return (struct value){.is = BELOW_SP, .at = value.at, .less = value.less, .plus = at};
  default:
    return (struct value){.is = UNKNOWN};
  }
}

static void pop(struct state *state, unsigned reg) {
  struct value top = load(state->reg[RSP], 0);
  state->reg[RSP].plus += 8;
  state->reg[reg] = top;
}

/* One instruction. False: not understood. */
static bool follow(struct state *state, bool *ret_returns) {
  uint8_t opcode, rex = 0;
  bool thread_local = false;
  struct operands it;
  int32_t immediate;
  if (!byte(state, &opcode))
    return false;
  if (opcode == 0x64) {
    thread_local = true;
    if (!byte(state, &opcode))
      return false;
  }
  if ((opcode & 0xf0) == 0x40) {
    rex = opcode;
    if (!byte(state, &opcode))
      return false;
  }
  bool wide = rex & 8;
  struct value *reg = state->reg;
  switch (opcode) {
  case 0x58 ... 0x5f: /* pop */
    pop(state, (opcode & 7) | (rex & 1) << 3);
    return reg[RSP].is != UNKNOWN;
  case 0x90: /* nop */
    return !rex;
  case 0x9d: /* popf */
    reg[RSP].plus += 8;
    return true;
  case 0xc9: /* leave */
    reg[RSP] = reg[RBP];
    pop(state, RBP);
    return reg[RSP].is != UNKNOWN;
  case 0xc3: /* ret */
    *ret_returns = true;
    return true;
  case 0x89: /* mov from a register */
    if (!operands(state, rex, &it))
      return false;
    if (!it.memory)
      reg[it.base] = wide ? reg[it.reg] : (struct value){.is = UNKNOWN};
    return true;
  case 0x8b: /* mov to a register */
    if (!operands(state, rex, &it))
      return false;
    if (!wide || thread_local || it.base == REGISTERS)
      reg[it.reg] = (struct value){.is = UNKNOWN};
    else
      reg[it.reg] = it.memory ? load(reg[it.base], it.offset) : reg[it.base];
    return reg[RSP].is != UNKNOWN;
  case 0x8d: /* lea */
    if (!operands(state, rex, &it) || !it.memory || !wide || it.base == REGISTERS)
      return false;
    reg[it.reg] = reg[it.base];
    reg[it.reg].plus += it.offset;
    return true;
  case 0x2b: /* sub */
    if (!operands(state, rex, &it) || !wide || !it.memory || thread_local || it.base == REGISTERS)
      return false;
    if (reg[it.reg].is == HIGH && reg[it.base].is == FROM_SP)
      reg[it.reg] = (struct value){.is = GOROUTINE,
                                   .at = reg[it.reg].at,
                                   .less = reg[it.base].plus + it.offset};
    else
      reg[it.reg] = (struct value){.is = UNKNOWN};
    return reg[RSP].is != UNKNOWN;
  case 0x81: /* add or sub of a constant */
  case 0x83:
    if (!operands(state, rex, &it) || it.memory || !wide || (it.reg & 7 && (it.reg & 7) != 5) ||
        !number(state, opcode == 0x83 ? 1 : 4, &immediate))
      return false;
    reg[it.base].plus += it.reg & 7 ? -immediate : immediate;
    return true;
  case 0xc7: /* mov of a constant, as for the place of a thread's own words */
    if (!operands(state, rex, &it) || it.memory || it.reg & 7 || it.base == RSP ||
        !number(state, 4, &immediate))
      return false;
    reg[it.base] = (struct value){.is = UNKNOWN};
    return true;
  case 0x0f:
    if (!byte(state, &opcode))
      return false;
    /* movups, movaps to a vector register; nop */
    return (opcode == 0x10 || opcode == 0x28 || opcode == 0x1f) && operands(state, rex, &it);
  default:
    return false;
  }
}

static bool is_frame(const struct value *reg, struct ls_epilogue *ret) {
  static const uint8_t preserved[] = {RBX, RBP, R12, R13, R14, R15};
  for (unsigned i = 0; i < sizeof preserved; i++) {
    const struct value *value = &reg[preserved[i]];
    if (value->is != WORD || value->plus || value->at < 0 || value->at >= reg[RSP].plus)
      return false;
  }
  *ret = (struct ls_epilogue){.kind = LS_EPILOGUE_FRAME, .cfa = reg[RSP].plus + 8, .fp_at = reg[RBP].at};
  return reg[RSP].plus > 0;
}

bool ls_epilogue_read(const uint8_t *code, size_t bytes, struct ls_epilogue *ret) {
  struct state state = {.at = code, .end = code + bytes};
  state.reg[RSP].is = FROM_SP;
  state.reg[RBP].is = FROM_FP;
  bool returns = false;
  for (unsigned i = 0; !returns; i++)
    if (i == MAX_INSTRUCTIONS || !follow(&state, &returns))
      return false;
  const struct value *sp = &state.reg[RSP], *fp = &state.reg[RBP];
  if (sp->is == FROM_SP)
    return is_frame(state.reg, ret);
  if (sp->is != WORD && sp->is != GOROUTINE)
    return false;
  bool same = fp->is == FROM_FP && !fp->plus && !sp->plus;
  bool popped = fp->is == BELOW_SP && !fp->plus && sp->plus == 8 && fp->at == sp->at &&
                fp->less == (sp->is == WORD ? -1 : sp->less);
  *ret = (struct ls_epilogue){.kind = sp->is == WORD ? LS_EPILOGUE_SAVED_SP : LS_EPILOGUE_GOROUTINE,
                              .g_at = sp->at,
                              .depth_at = sp->is == WORD ? sp->at : sp->less,
                              .pops_fp = popped};
  return (same || popped) && ret->g_at >= 0 && ret->depth_at >= 0;
}

#else

/* Not read on other machines: stacks through cgo end there, marked as incomplete. */
bool ls_epilogue_read(const uint8_t *code, size_t bytes, struct ls_epilogue *ret) {
  (void)code, (void)bytes, (void)ret;
  return false;
}

#endif
