// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Keeping a stack: its words, and its place in the index.
 */
#include "kept.h"
#include "str.h"
#include "thread.h"

void ls_kept_forget(struct ls_thread *thread) {
  memset(thread->kept_index, 0, sizeof thread->kept_index);
  memset(thread->kept_seen, 0, sizeof thread->kept_seen);
}

/* Room for so many words, at the cost of the oldest stacks. */
static struct ls_kept_stack *take(struct ls_thread *thread, uint32_t words) {
  uint32_t padded = (words + 3) & ~3u;
  uint32_t bytes = sizeof(struct ls_kept_stack) + padded * (sizeof(uintptr_t) + sizeof(uint16_t));
  bytes = (bytes + LS_KEPT_UNIT - 1) & ~(LS_KEPT_UNIT - 1);
  uint32_t at = thread->kept_end;
  if (at + bytes > LS_KEPT_BYTES)
    at = 0;
  thread->kept_end = at + bytes;
  /* First of all, the stacks that lay here are not to be found any more, whatever a signal
   * handler does now, and the new one not before it is whole. */
  for (uint32_t unit = at; unit < at + bytes; unit += LS_KEPT_UNIT)
    ((struct ls_kept_stack *)(thread->kept + unit))->key = 0;
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
  struct ls_kept_stack *kept = (struct ls_kept_stack *)(thread->kept + at);
  kept->words = (uint16_t)words;
  kept->padded = (uint16_t)padded;
  return kept;
}

/* Where a word lies, in words above sp; LS_KEPT_BRANCH: too far away. */
static uint32_t above(const struct ls_check *check, uintptr_t sp) {
  uintptr_t words = ((uintptr_t)check->slot - sp) / sizeof(uintptr_t);
  return words < LS_KEPT_BRANCH ? (uint32_t)words : LS_KEPT_BRANCH;
}

static bool can_be_kept(const struct ls_thread *thread) {
  const struct ls_frame *frames = thread->frames, *leaf = &frames[thread->depth - 1];
  uint32_t far = 0;
  for (uint32_t k = 0; k + 1 < thread->depth; k++) {
    if (frames[k + 1].node == frames[k].node)
      return false; /* the depot is full, and the loss is to be counted each time */
    far |= above(&thread->ra_checks[k], leaf->sp);
  }
  for (uint32_t c = 0; c < leaf->fp_checks; c++)
    far |= above(&thread->fp_checks[c], leaf->sp);
  return leaf->node && !(far & LS_KEPT_BRANCH) && thread->depth - 1 + leaf->fp_checks <= LS_KEPT_WORDS;
}

/* All that the unwinding of thread->frames read. */
static struct ls_kept_stack *copy(struct ls_thread *thread) {
  const struct ls_frame *frames = thread->frames, *leaf = &frames[thread->depth - 1];
  uint32_t words = thread->depth - 1 + leaf->fp_checks, n = 0;
  struct ls_kept_stack *kept = take(thread, words);
  uint16_t *word = (uint16_t *)ls_kept_words(kept);
  for (uint32_t k = thread->depth - 1; k-- > 0;) {
    const struct ls_check *check = &thread->ra_checks[k];
    for (uint32_t c = frames[k].fp_checks;; check = &thread->fp_checks[c++]) {
      word[n] = (uint16_t)above(check, leaf->sp);
      kept->value[n++] = check->value;
      if (c == frames[k + 1].fp_checks)
        break;
    }
  }
  for (; n < kept->padded; n++) {
    word[n] = word[words - 1];
    kept->value[n] = kept->value[words - 1];
  }
  kept->pc = leaf->pc;
  kept->sp = leaf->sp;
  kept->fp = leaf->fp;
  kept->fp_mask = leaf->need_fp ? ~(uintptr_t)0 : 0;
  return kept;
}

/* Put an entry into the index: a branch, or a stack's place. */
static void point(struct ls_thread *thread, uint64_t key, uint32_t payload) {
  uint64_t *set = thread->kept_index[key >> (64 - LS_KEPT_BITS)];
  uint32_t way = 0;
  while (way < LS_KEPT_WAYS && !ls_kept_is(set[way], key))
    way++;
  if (way == LS_KEPT_WAYS)
    for (way = 0; way < LS_KEPT_WAYS && set[way];)
      way++;
  if (way == LS_KEPT_WAYS)
    way = thread->kept_end / LS_KEPT_UNIT % LS_KEPT_WAYS; /* any */
  set[way] = (key & ~0xffffull) | payload;
}

static void place(struct ls_thread *thread, uint64_t key, struct ls_kept_stack *kept) {
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
  kept->key = key;
  point(thread, key, (uint32_t)((uint8_t *)kept - thread->kept) / LS_KEPT_UNIT);
}

/* The first word in which `old` differs from the stack as it is, or its number of words. */
static uint32_t first_difference(const struct ls_kept_stack *old) {
  const uintptr_t *stack = (const uintptr_t *)old->sp;
  const uint16_t *word = ls_kept_words(old);
  uint32_t i = 0;
  while (i < old->words && stack[word[i]] == old->value[i])
    i++;
  return i;
}

void ls_kept_add(struct ls_thread *thread, uint8_t kind, uint32_t site,
                 struct lsr_counter *counter) {
  uint32_t node = thread->frames[thread->depth - 1].node;
  uint32_t *seen = &thread->kept_seen[node % LS_KEPT_SEEN];
  if (*seen != node) { /* a stack met once is not worth another's place */
    *seen = node;
    thread->remembers = true;
    return;
  }
  if (!can_be_kept(thread))
    return;
  struct ls_kept_stack *kept = copy(thread);
  kept->kind = kind;
  kept->site = site;
  kept->counter = counter;

  const uintptr_t *stack = (const uintptr_t *)kept->sp;
  uint64_t key = ls_kept_first(kind, kept->pc, kept->sp);
  for (uint32_t level = 0; level < LS_KEPT_LEVELS; level++) {
    uint64_t entry = ls_kept_entry(thread, key);
    if (!entry)
      break;
    if (entry & LS_KEPT_BRANCH) {
      const uintptr_t *word = stack + (entry & (LS_KEPT_BRANCH - 1));
      if ((uintptr_t)word >= thread->stack_high)
        break;
      key = ls_kept_mix(key, *word);
      continue;
    }
    struct ls_kept_stack *old = (struct ls_kept_stack *)ls_kept_at(thread, entry);
    if (old == kept || old->key != key || old->pc != kept->pc || old->sp != kept->sp ||
        old->kind != kind)
      break; /* given up */
    uint32_t i = first_difference(old);
    if (i == old->words || level + 1 == LS_KEPT_LEVELS)
      break;
    uint16_t word = ls_kept_words(old)[i];
    place(thread, ls_kept_mix(key, old->value[i]), old);
    point(thread, key, LS_KEPT_BRANCH | word);
    key = ls_kept_mix(key, stack[word]);
    break;
  }
  place(thread, key, kept);
}
