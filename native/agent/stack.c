// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Call stacks. The thread's previous stack is kept as the machine state in each frame
 * and the stack words that unwinding read. An unwind is a function of its starting
 * registers and of those words: where a new stack meets a kept frame in the same state
 * and all words from there outwards still hold the same values, the rest is the same
 * and is not unwound again. Return addresses are never patched.
 */
#include "bounds.h"
#include "config.h"
#include "counters.h"
#include "depot.h"
#include "peek.h"
#include "private.h"
#include "process.h"
#include "recording.h"
#include "rules.h"
#include "stack.h"
#include "str.h"
#include "sys.h"

#define WINDOW_BYTES 16384u
#define LARGEST_SURE 65536u /* bytes of a goroutine's stack that are asked for at once */

/* A frame being unwound, innermost first, and the words that led to it. */
struct step {
  uintptr_t pc, sp, fp;
  const uintptr_t *ra_slot; /* where pc was read, NULL for the innermost frame */
  uintptr_t ra_value;       /* as read, before PAC stripping */
  const uintptr_t *fp_slot; /* where fp was read, NULL when unchanged */
  const uintptr_t *extra_slot; /* a further word the state depends on, or NULL */
  uintptr_t extra_value;
  const uintptr_t *link_slot; /* x30 of a frame that a signal interrupted, or NULL */
  uint64_t rule;
  bool exact;
  bool in_go; /* of a goroutine's stack: all functions there keep a chain of frame pointers */
};

/* Where stack words may be read from. */
struct reader {
  uintptr_t low, high; /* the thread's own stack, read directly */
  uint8_t *window;     /* copy of a foreign stack, NULL when not needed */
  uintptr_t window_at;
  size_t window_bytes;
  uintptr_t sp;        /* of a foreign stack */
  uintptr_t end;       /* of the goroutine's stack that was entered last, 0: none */
  uintptr_t sure;      /* from there to its end the kernel was asked: read directly */
  struct goroutine *goroutines;
  uintptr_t own_sp;    /* where the thread's own stack was left for it */
  bool foreign;
};

/* What the kernel let us read of a goroutine and its stack. Go never unmaps either, and a thread
 * that is in C on behalf of one is going to need both: they stay readable. */
#define GOROUTINES 128u
struct goroutine {
  uintptr_t g, low, end; /* of it all between is readable */
};

static bool read_foreign(struct reader *reader, uintptr_t address, uintptr_t *ret) {
  if (address - reader->window_at >= reader->window_bytes ||
      reader->window_bytes - (address - reader->window_at) < sizeof *ret) {
    if (!reader->window)
      return false;
    /* Where the kernel may not be asked, the page is left that the stack pointer lies in. */
    if (ls_is_sealed() && address >= reader->sp && (address ^ reader->sp) < 4096) {
      *ret = *(const uintptr_t *)address;
      return true;
    }
    size_t wanted = reader->end - address < WINDOW_BYTES ? reader->end - address : WINDOW_BYTES;
    struct ls_iovec local = {reader->window, wanted}, remote = {(void *)address, wanted};
    /* The kernel copies up to the first unmapped page and never faults us. */
    long n = ls_process_vm_readv(ls_getpid(), &local, 1, &remote, 1, 0);
    if (n < (long)sizeof *ret) {
      if (remote.length > 4096 - (address & 4095))
        remote.length = 4096 - (address & 4095);
      local.length = remote.length;
      n = ls_process_vm_readv(ls_getpid(), &local, 1, &remote, 1, 0);
    }
    if (n < 0 && ls_peek(reader->window, address, remote.length)) /* not allowed: asked otherwise */
      n = (long)remote.length;
    if (n < (long)sizeof *ret) {
      reader->window_bytes = 0;
      return false;
    }
    reader->window_at = address;
    reader->window_bytes = (size_t)n;
  }
  memcpy(ret, reader->window + (address - reader->window_at), sizeof *ret);
  return true;
}

static inline bool read_word(struct reader *reader, uintptr_t address, uintptr_t *ret) {
  if (LS_UNLIKELY(address & (sizeof *ret - 1)))
    return false;
  if (LS_LIKELY(address >= reader->low && address < reader->high)) {
    *ret = *(const uintptr_t *)address;
    return true;
  }
  if (address >= reader->sure && address < reader->end) {
    *ret = *(const uintptr_t *)address;
    return true;
  }
  return reader->foreign && read_foreign(reader, address, ret);
}

enum outcome { STEP_OK, STEP_END, STEP_BROKEN, STEP_ELSEWHERE };

static enum outcome step_by_frame_pointer(struct reader *reader, const struct step *in,
                                          struct step *out) {
  uintptr_t fp = in->fp, pc, next_fp, above = in->sp;
  if (in->in_go) {
    if (!fp)
      return STEP_END;
    /* C called back into Go: the next frame lies on the thread's own stack again. Anything else
     * is of a stack that this one has outgrown: before 1.21 such a pointer is not put right. */
    if (fp - reader->own_sp < reader->high - reader->own_sp)
      above = reader->own_sp;
    else if (fp >= reader->end)
      return STEP_BROKEN;
  }
  if (fp < above || fp & (sizeof fp - 1) || !read_word(reader, fp, &next_fp) ||
      !read_word(reader, fp + sizeof fp, &pc))
    return STEP_BROKEN;
  if (!pc)
    return STEP_END;
  uintptr_t bare = (uintptr_t)ls_strip_pac((void *)pc);
  if (!ls_module_find(bare))
    return STEP_BROKEN;
  *out = (struct step){.pc = bare,
                       .sp = fp + 2 * sizeof fp,
                       .fp = next_fp,
                       .ra_slot = (const uintptr_t *)(fp + sizeof fp),
                       .ra_value = pc,
                       .fp_slot = (const uintptr_t *)fp,
                       .in_go = in->in_go && above == in->sp};
  return STEP_OK;
}

/* Where the stack of the goroutine at `g` is, and whether `depth` bytes of it can be read. */
static bool enter_goroutine(struct reader *reader, uintptr_t g, uintptr_t depth) {
  struct goroutine *known = &reader->goroutines[(g * 0x9E3779B97F4A7C15ull) >> 57];
  struct {
    uintptr_t low, high;
  } bounds;
  if (g & (sizeof g - 1))
    return false;
  if (known->g == g)
    bounds = *(const __typeof__(bounds) *)g;
  else if (!ls_peek(&bounds, g, sizeof bounds))
    return false;
  if (bounds.high <= bounds.low || bounds.high & (sizeof g - 1) || depth & (sizeof g - 1) ||
      depth < 2 * sizeof g || depth > bounds.high - bounds.low)
    return false;
  uintptr_t sp = bounds.high - depth;
  if (known->g != g || known->end != bounds.high || known->low > sp) {
    known->g = 0;
    /* Deep ones are read piece by piece. */
    if (depth > LARGEST_SURE || ls_peek_run(sp, bounds.high) < bounds.high) {
      reader->sure = reader->end = bounds.high;
      return true;
    }
    *known = (struct goroutine){g, sp & ~(uintptr_t)4095, bounds.high};
  }
  reader->sure = sp;
  reader->end = bounds.high;
  return true;
}

/* From C to the goroutine that called it, or to where Go's run-time was on this stack. The code
 * that will be returned to says where to look; what lies there has to make sense as well. */
static LS_COLD enum outcome step_by_switch(struct reader *reader, const struct step *in,
                                           struct step *out) {
  const struct ls_rule_switch rule = ls_rule_switch(in->rule);
  uintptr_t word, g, sp = 0, fp = in->fp, pc;
  if (!read_word(reader, in->sp + (uintptr_t)rule.depth_at, &word))
    return STEP_BROKEN;
  if (rule.goroutine) {
    if (!read_word(reader, in->sp + (uintptr_t)rule.g_at, &g) || !enter_goroutine(reader, g, word))
      return STEP_BROKEN;
    sp = reader->end - word;
    reader->own_sp = in->sp;
  } else {
    sp = word;
    if (sp <= in->sp)
      return STEP_BROKEN;
  }
  uintptr_t at = sp;
  if (rule.pops_fp) {
    if (!read_word(reader, at, &fp))
      return STEP_BROKEN;
    at += sizeof fp;
  }
  if (!read_word(reader, at, &pc) || !ls_module_find(pc))
    return STEP_BROKEN;
  *out = (struct step){.pc = pc, .sp = at + sizeof pc, .fp = fp, .in_go = rule.goroutine};
  return STEP_OK;
}

static inline enum outcome step_out(struct reader *reader, struct step *in, struct step *out) {
  uint64_t rule = ls_rule_lookup(in->pc, in->exact);
  in->rule = rule;
  uintptr_t cfa, pc, fp = in->fp;
  const uintptr_t *fp_slot = NULL, *extra_slot = NULL;
  uintptr_t extra_value = 0;
  switch (ls_rule_kind(rule)) {
  case LS_RULE_LINK:
    if (!in->link_slot)
      return STEP_BROKEN;
    /* fall through */
  case LS_RULE_SP:
    cfa = in->sp + (uintptr_t)ls_rule_cfa_offset(rule);
    break;
  case LS_RULE_FP:
    cfa = fp + (uintptr_t)ls_rule_cfa_offset(rule);
    break;
  case LS_RULE_FP_DEREF: {
    extra_slot = (const uintptr_t *)(fp + (uintptr_t)ls_rule_cfa_offset(rule));
    if (!read_word(reader, (uintptr_t)extra_slot, &cfa))
      return STEP_BROKEN;
    extra_value = cfa;
    break;
  }
  case LS_RULE_SIGNAL: {
    const uintptr_t *pc_slot = (const uintptr_t *)(in->sp + LS_SIGNAL_PC_OFFSET);
    extra_slot = (const uintptr_t *)(in->sp + LS_SIGNAL_SP_OFFSET);
    fp_slot = (const uintptr_t *)(in->sp + LS_SIGNAL_FP_OFFSET);
    if (!read_word(reader, (uintptr_t)pc_slot, &pc) ||
        !read_word(reader, (uintptr_t)extra_slot, &extra_value) ||
        !read_word(reader, (uintptr_t)fp_slot, &fp))
      return STEP_BROKEN;
    *out = (struct step){.pc = pc,
                         .sp = extra_value,
                         .fp = fp,
                         .ra_slot = pc_slot,
                         .ra_value = pc,
                         .fp_slot = fp_slot,
                         .extra_slot = extra_slot,
                         .extra_value = extra_value,
#ifdef LS_SIGNAL_LINK_OFFSET
                         .link_slot = (const uintptr_t *)(in->sp + LS_SIGNAL_LINK_OFFSET),
#endif
                         .exact = true};
    return STEP_OK;
  }
  case LS_RULE_END:
    return STEP_END;
  case LS_RULE_SWITCH:
    return reader->foreign ? step_by_switch(reader, in, out) : STEP_ELSEWHERE;
  default:
    /* No rule before the address but one at it: not behind a call but the first instruction
     * of a function. Such a frame is hand-made (makecontext) and the outermost. */
    if (!in->exact && ls_rule_kind(ls_rule_lookup(in->pc, true)) != LS_RULE_NONE)
      return STEP_END;
    return step_by_frame_pointer(reader, in, out);
  }
  /* The outer frame lies above; anything else is damage or a foreign stack's seam. */
  const uintptr_t *ra_slot = (const uintptr_t *)(cfa + (uintptr_t)ls_rule_ra_offset(rule));
  if (LS_UNLIKELY(ls_rule_kind(rule) == LS_RULE_LINK))
    ra_slot = in->link_slot; /* a leaf that was interrupted: it may have no frame at all */
  else if (LS_UNLIKELY(cfa <= in->sp))
    return STEP_BROKEN;
  uintptr_t raw;
  if (LS_UNLIKELY(!read_word(reader, (uintptr_t)ra_slot, &raw)))
    return STEP_BROKEN;
  if (ls_rule_saves_fp(rule)) {
    uintptr_t at = (ls_rule_kind(rule) == LS_RULE_FP_DEREF ? in->fp : cfa) +
                   (uintptr_t)ls_rule_fp_offset(rule);
    fp_slot = (const uintptr_t *)at;
    if (LS_UNLIKELY(!read_word(reader, at, &fp)))
      return STEP_BROKEN;
  }
  pc = (uintptr_t)ls_strip_pac((void *)raw);
  if (LS_UNLIKELY(!pc))
    return STEP_END;
  *out = (struct step){.pc = pc,
                       .sp = cfa,
                       .fp = fp,
                       .ra_slot = ra_slot,
                       .ra_value = raw,
                       .fp_slot = fp_slot,
                       .extra_slot = extra_slot,
                       .extra_value = extra_value};
  return STEP_OK;
}

static inline bool step_uses_fp(const struct step *step) {
  unsigned kind = ls_rule_kind(step->rule);
  return kind == LS_RULE_FP || kind == LS_RULE_FP_DEREF || kind == LS_RULE_NONE;
}

static inline bool step_restores_fp(const struct step *step) {
  unsigned kind = ls_rule_kind(step->rule);
  return kind == LS_RULE_SIGNAL || kind == LS_RULE_NONE || ls_rule_saves_fp(step->rule);
}

/* The innermost frame below `inner` that was reached through a word that changed. */
static uint32_t innermost_changed(const struct ls_thread *thread, uint32_t inner) {
  for (uint32_t k = inner; k-- > 0;) {
    if (*thread->ra_checks[k].slot != thread->ra_checks[k].value)
      return k;
    for (uint32_t c = thread->frames[k].fp_checks; c < thread->frames[k + 1].fp_checks; c++)
      if (*thread->fp_checks[c].slot != thread->fp_checks[c].value)
        return k;
  }
  return 0;
}

static inline uint32_t edge_hash(uint32_t parent, uintptr_t pc) {
  return (uint32_t)((pc ^ (uint64_t)parent << 40) * 0x9E3779B97F4A7C15ull >> 48);
}

static uint32_t node_of(struct ls_thread *thread, uint32_t parent, const struct step *step,
                        uint16_t flags) {
  /* Compiling a rule may just have found out that a module is gone. */
  bool usual = !(flags | step->exact) && thread->module_epoch == ls_module_epoch();
  struct ls_edge *edge = &thread->edges[edge_hash(parent, step->pc) % LS_EDGES];
  if (LS_LIKELY(usual && edge->pc == step->pc && edge->parent == parent))
    return edge->node;
  uint16_t module = ls_rule_module(step->rule);
  uint64_t offset = step->pc - (module ? (uintptr_t)ls_module_bias(module) : 0);
  uint32_t node = ls_depot_node(parent, module, flags | (step->exact ? LSR_NODE_EXACT_PC : 0), offset);
  if (usual && module && node != parent) {
    thread->remembers = true;
    edge->pc = 0; /* a signal handler may leave us at any moment */
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    edge->parent = parent;
    edge->node = node;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    edge->pc = step->pc;
  }
  return node;
}

static bool add_check(struct ls_thread *thread, uint16_t *count, const uintptr_t *slot,
                      uintptr_t value) {
  if (*count >= LS_MAX_FP_CHECKS)
    return false;
  thread->fp_checks[(*count)++] = (struct ls_check){slot, value};
  return true;
}

/* Deeper than the configured depth: the site is the innermost frames only. */
static LS_COLD uint32_t cut_to_depth(const struct ls_thread *thread, uint32_t depth) {
  uint32_t node = 0;
  for (uint32_t k = thread->depth - depth; k < thread->depth; k++) {
    const struct lsr_node *full = &ls_live->nodes[thread->frames[k].node];
    uint16_t flags = full->flags | (node ? 0 : LSR_NODE_TRUNCATED);
    node = ls_depot_node(node, full->module, flags, full->offset);
  }
  return node;
}

/* A stack that is not the thread's own (coroutine, sigaltstack): copy, unwind, keep nothing. */
uint32_t ls_stack_capture_foreign(struct ls_thread *thread, uintptr_t pc, uintptr_t sp,
                                        uintptr_t fp, uint32_t *ret_depth) {
  if (ls_is_sealed() && sp < thread->stack_low && ls_stack_reaches_unasked(thread, sp))
    return ls_stack_capture_slow(thread, pc, sp, fp, ret_depth);
  if (!thread->window) {
    uint8_t *memory = ls_private(WINDOW_BYTES + LS_MAX_DEPTH * sizeof(struct step) +
                                 GOROUTINES * sizeof(struct goroutine));
    if (!memory) {
      ls_count_drop(thread, LSR_DROP_STACK_BROKEN);
      *ret_depth = 0;
      return 0;
    }
    thread->window = memory;
  }
  struct step *steps = (struct step *)(thread->window + WINDOW_BYTES);
  /* Through the kernel also what lies on the thread's own stack: registers of a foreign one may
   * lead below what there is of it. */
  struct reader reader = {.window = thread->window,
                          .sp = sp,
                          .goroutines = (struct goroutine *)(steps + LS_MAX_DEPTH),
                          .foreign = true};
  if (sp - thread->stack_low < thread->stack_high - thread->stack_low) {
    reader.low = sp;
    reader.high = thread->stack_high;
  }
  uint32_t limit = ls_config.depth, count = 1;
  steps[0] = (struct step){.pc = pc, .sp = sp, .fp = fp};
  enum outcome outcome = STEP_OK;
  while (count < limit) {
    outcome = step_out(&reader, &steps[count - 1], &steps[count]);
    if (outcome != STEP_OK)
      break;
    count++;
  }
  const struct step *last = &steps[count - 1];
  bool whole = outcome == STEP_END;
  if (sp < thread->stack_low &&
      ls_stack_reaches(thread, sp, whole ? last->sp : 0, whole ? last->pc : 0))
    return ls_stack_capture_slow(thread, pc, sp, fp, ret_depth);
  uint16_t flags = 0;
  if (outcome == STEP_OK) {
    steps[count - 1].rule = ls_rule_lookup(steps[count - 1].pc, steps[count - 1].exact);
    flags = LSR_NODE_TRUNCATED;
    ls_count_drop(thread, LSR_DROP_STACK_TRUNCATED);
  } else if (outcome == STEP_BROKEN) {
    flags = LSR_NODE_BROKEN;
    ls_count_drop(thread, LSR_DROP_STACK_BROKEN);
  }
  if (sp - thread->stack_low >= thread->stack_high - thread->stack_low)
    ls_count_drop(thread, LSR_DROP_FOREIGN_STACK);
  uint32_t node = 0;
  for (uint32_t s = count; s-- > 0; flags = 0)
    node = node_of(thread, node, &steps[s], flags);
  *ret_depth = count;
  return node;
}

uint32_t ls_stack_capture_slow(struct ls_thread *thread, uintptr_t pc,
                                                       uintptr_t sp, uintptr_t fp,
                                                       uint32_t *ret_depth) {
  struct step *steps = thread->steps;
  struct reader reader = {.low = sp, .high = thread->stack_high};
  int32_t candidate = (int32_t)thread->depth - 1, joined = -1;
  uint32_t last = 0; /* index of the outermost step so far */
  uint16_t flags = 0;
  steps[0] = (struct step){.pc = pc, .sp = sp, .fp = fp};
  for (;;) {
    struct step *in = &steps[last];
    while (candidate >= 0 && thread->frames[candidate].sp < in->sp)
      candidate--;
    if (candidate >= 0) {
      const struct ls_frame *kept = &thread->frames[candidate];
      if (kept->sp == in->sp && kept->pc == in->pc && kept->exact == in->exact &&
          (!kept->need_fp || kept->fp == in->fp)) {
        if (ls_stack_still_valid(thread, (uint32_t)candidate)) {
          joined = candidate;
          break;
        }
        candidate = (int32_t)innermost_changed(thread, (uint32_t)candidate);
      }
    }
    if (last + 1 >= LS_MAX_DEPTH) {
      in->rule = ls_rule_lookup(in->pc, in->exact);
      flags = LSR_NODE_TRUNCATED;
      break;
    }
    enum outcome outcome = step_out(&reader, in, &steps[last + 1]);
    if (LS_UNLIKELY(outcome == STEP_ELSEWHERE)) {
      thread->depth = 0;
      return ls_stack_capture_foreign(thread, pc, sp, fp, ret_depth);
    }
    if (outcome != STEP_OK) {
      if (outcome == STEP_BROKEN)
        flags = LSR_NODE_BROKEN;
      break;
    }
    last++;
    if (LS_UNLIKELY(steps[last].sp < steps[last - 1].sp || steps[last].sp > thread->stack_high)) {
      /* The chain leaves this stack (a signal came in on another one). */
      thread->depth = 0;
      return ls_stack_capture_foreign(thread, pc, sp, fp, ret_depth);
    }
  }

  uint32_t k; /* next frame to fill */
  uint32_t s; /* steps s-1 .. 0 are new */
  if (joined >= 0 && (uint32_t)joined + 1 + last > LS_MAX_DEPTH) {
    /* Too deep to keep whole: unwind afresh next time. */
    joined = -1;
    thread->depth = 0;
    return ls_stack_capture_slow(thread, pc, sp, fp, ret_depth);
  }
  if (joined >= 0) {
    k = (uint32_t)joined + 1;
    s = last;
  } else {
    struct step *outermost = &steps[last];
    thread->frames[0] = (struct ls_frame){.pc = outermost->pc,
                                          .sp = outermost->sp,
                                          .fp = outermost->fp,
                                          .exact = outermost->exact,
                                          .need_fp = step_uses_fp(outermost) && flags != 0,
                                          .node = node_of(thread, 0, outermost, flags)};
    k = 1;
    s = last;
  }
  while (s-- > 0) {
    const struct step *outer = &steps[s + 1];
    struct step *step = &steps[s];
    struct ls_frame *below = &thread->frames[k - 1], *frame = &thread->frames[k];
    uint16_t checks = below->fp_checks;
    bool room = true;
    thread->ra_checks[k - 1] = (struct ls_check){outer->ra_slot, outer->ra_value};
    if (below->need_fp && outer->fp_slot)
      room &= add_check(thread, &checks, outer->fp_slot, outer->fp);
    if (outer->extra_slot)
      room &= add_check(thread, &checks, outer->extra_slot, outer->extra_value);
    *frame = (struct ls_frame){.pc = step->pc,
                               .sp = step->sp,
                               .fp = step->fp,
                               .exact = step->exact,
                               .fp_checks = checks,
                               .need_fp = step_uses_fp(step) ||
                                          (below->need_fp && !step_restores_fp(step)),
                               .node = node_of(thread, below->node, step, 0)};
    if (!room)
      frame->sp = UINTPTR_MAX; /* cannot be re-validated: never joins */
    k++;
  }
  thread->depth = k;
  /* What is remembered is a function of the words that are checked. That is not so of code in
   * no known module, which may be loaded by now, nor of a frame pointer that led nowhere. */
  bool unsure = flags == LSR_NODE_BROKEN && thread->frames[0].fp >= thread->frames[0].sp;
  for (uint32_t i = 0; i <= last && !unsure; i++)
    unsure = (joined < 0 || i < last) && !ls_rule_module(steps[i].rule);
  if (flags)
    ls_count_drop(thread, flags == LSR_NODE_BROKEN ? LSR_DROP_STACK_BROKEN
                                                   : LSR_DROP_STACK_TRUNCATED);
  if (LS_UNLIKELY(k > ls_config.depth)) {
    ls_count_drop(thread, LSR_DROP_STACK_TRUNCATED);
    *ret_depth = ls_config.depth;
    uint32_t node = cut_to_depth(thread, ls_config.depth);
    if (flags == LSR_NODE_TRUNCATED || unsure)
      thread->depth = 0;
    return node;
  }
  *ret_depth = k;
  uint32_t node = thread->frames[k - 1].node;
  if (flags == LSR_NODE_TRUNCATED || unsure)
    thread->depth = 0; /* truncated: frame 0 is arbitrary, and joining it would shift the cut */
  return node;
}

void ls_stack_forget(struct ls_thread *thread) {
  thread->depth = 0;
  if (!thread->remembers) /* leave the pages alone that were never used */
    return;
  thread->remembers = false;
  ls_kept_forget(thread);
  memset(thread->edges, 0, sizeof thread->edges);
}

void ls_stack_discard(struct ls_thread *thread) {
  uintptr_t low = ((uintptr_t)thread->edges + 4095) & ~(uintptr_t)4095;
  uintptr_t high = (uintptr_t)(thread->kept + LS_KEPT_BYTES) & ~(uintptr_t)4095;
  thread->depth = 0;
  if (!thread->remembers)
    return;
  if (ls_madvise((void *)low, high - low, 4 /* MADV_DONTNEED */) < 0) {
    ls_stack_forget(thread);
    return;
  }
  /* What lies on the pages at both ends: no more than some edges and kept stacks, and those are
   * found by the index alone, which is gone. */
  memset(thread->edges, 0, low - (uintptr_t)thread->edges);
  thread->remembers = false;
}

struct ls_stack_site ls_stack_site_slow(struct ls_thread *thread, uint8_t kind, uintptr_t pc,
                                        uintptr_t sp, uintptr_t fp) {
  uint32_t depth;
  uint32_t node = ls_stack_capture(thread, pc, sp, fp, &depth);
  uint32_t site = ls_depot_site(thread, node, kind, depth);
  struct lsr_counter *counter = ls_counter_of(thread, site);
  /* Only the thread's own stack, whole and not cut, is in thread->frames. */
  if (thread->depth && thread->depth == depth && site && counter) {
    const struct ls_frame *leaf = &thread->frames[depth - 1];
    if (leaf->pc == pc && leaf->sp == sp && leaf->fp == fp && leaf->node == node)
      ls_kept_add(thread, kind, site, counter);
  }
  return (struct ls_stack_site){site, counter};
}

void ls_stack_lost(struct ls_thread *thread, uintptr_t start, uint64_t length) {
  if (!length || start >= thread->stack_high || start + length <= thread->stack_low)
    return;
  uintptr_t sp = (uintptr_t)__builtin_frame_address(0);
  if (start + length <= sp) { /* below what is in use */
    thread->stack_low = start + length;
    return;
  }
  thread->stack_low = thread->stack_high; /* nothing is known to be there */
  ls_stack_forget(thread);
}

size_t ls_stack_scratch_bytes(void) { return (LS_MAX_DEPTH + 1) * sizeof(struct step); }
