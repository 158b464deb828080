// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * The stacks a thread allocates from again and again, found without unwinding.
 *
 * An unwind is a function of its starting registers and of the stack words it reads
 * (stack.h). A kept stack has those registers and words and what came of them; where all are
 * equal again, so is the stack. It is found by a hash of pc, sp and the kind of the allocation.
 * Where several stacks begin alike (wrappers of malloc), the index says which word tells them
 * apart, the innermost in which two of them differed, and the next step hashes that word as
 * well: a Patricia trie over the words, laid out in a hash table of fixed size. An entry may
 * point at a stack that was given up since, or into the middle of a newer one: what is found
 * there has to have the entry's key and the registers.
 */
#ifndef LEAKSCOPE_KEPT_H
#define LEAKSCOPE_KEPT_H

#include "thread.h"

#define LS_KEPT_LEVELS 12u
#define LS_KEPT_BRANCH 0x8000u /* an entry's low 16 bits: this and a word, or the stack's place */
_Static_assert(LS_KEPT_BYTES / LS_KEPT_UNIT <= LS_KEPT_BRANCH, "places fit into an entry");

LS_HOT uint64_t ls_kept_mix(uint64_t key, uintptr_t word) {
  return (key ^ word) * 0x9E3779B97F4A7C15ull;
}

LS_HOT uint64_t ls_kept_first(uint8_t kind, uintptr_t pc, uintptr_t sp) {
  return ls_kept_mix(pc + kind, sp << 20);
}

/* Stored in an entry: the upper 48 bits of the key. */
LS_HOT bool ls_kept_is(uint64_t entry, uint64_t key) { return !((entry ^ key) >> 16); }

LS_HOT const struct ls_kept_stack *ls_kept_at(const struct ls_thread *thread, uint64_t entry) {
  const struct ls_kept_stack *kept =
      (const struct ls_kept_stack *)(thread->kept + (entry & 0xffff) * LS_KEPT_UNIT);
  __asm__("" : "+r"(kept)); /* keep it: not to be computed anew for each of its fields */
  return kept;
}

LS_HOT const uint16_t *ls_kept_words(const struct ls_kept_stack *kept) {
  return (const uint16_t *)(kept->value + kept->padded);
}

LS_HOT bool ls_kept_holds(const struct ls_kept_stack *kept, uint64_t key, uint8_t kind,
                          uintptr_t pc, uintptr_t sp, uintptr_t fp) {
  if (kept->key != key || kept->pc != pc || kept->sp != sp || kept->kind != kind ||
      (kept->fp ^ fp) & kept->fp_mask)
    return false;
  const uintptr_t *stack = (const uintptr_t *)sp;
  uintptr_t difference = 0;
  const uint16_t *word = ls_kept_words(kept);
  const uintptr_t *value = kept->value, *end = (const uintptr_t *)word;
  for (; value < end; value += 4, word += 4)
    difference |= (stack[word[0]] ^ value[0]) | (stack[word[1]] ^ value[1]) |
                  (stack[word[2]] ^ value[2]) | (stack[word[3]] ^ value[3]);
  return !difference;
}

/* The entry with that key, 0: none. */
LS_HOT uint64_t ls_kept_entry(const struct ls_thread *thread, uint64_t key) {
  const uint64_t *set = thread->kept_index[key >> (64 - LS_KEPT_BITS)];
  for (uint32_t way = 0; way < LS_KEPT_WAYS; way++)
    if (LS_LIKELY(ls_kept_is(set[way], key)))
      return set[way];
  return 0;
}

/* The kept stack that these registers begin, NULL when there is none. `sp` lies in the
 * thread's own stack. */
LS_HOT const struct ls_kept_stack *ls_kept_find(const struct ls_thread *thread, uint8_t kind,
                                                uintptr_t pc, uintptr_t sp, uintptr_t fp) {
  uint64_t key = ls_kept_first(kind, pc, sp);
  for (uint32_t level = 0; level < LS_KEPT_LEVELS; level++) {
    uint64_t entry = ls_kept_entry(thread, key);
    if (LS_UNLIKELY(!entry))
      return NULL;
    if (LS_LIKELY(!(entry & LS_KEPT_BRANCH))) {
      const struct ls_kept_stack *kept = ls_kept_at(thread, entry);
      return LS_LIKELY(ls_kept_holds(kept, key, kind, pc, sp, fp)) ? kept : NULL;
    }
    const uintptr_t *word = (const uintptr_t *)sp + (entry & (LS_KEPT_BRANCH - 1));
    if (LS_UNLIKELY((uintptr_t)word >= thread->stack_high))
      return NULL;
    key = ls_kept_mix(key, *word);
  }
  return NULL;
}

/* Keep the thread's newest stack, the one in thread->frames, when it is not met for the first
 * time. */
void ls_kept_add(struct ls_thread *thread, uint8_t kind, uint32_t site,
                 struct lsr_counter *counter);

void ls_kept_forget(struct ls_thread *thread);

#endif
