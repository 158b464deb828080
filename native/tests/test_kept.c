// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Kept stacks beside what unwinding would say: what is found is the stack that lies there, to its
 * last word, whatever was kept, given up or forgotten before; and stacks met again are found.
 * Prints what failed and exits 1.
 */
#include "alone.h"
#include "kept.h"

#define DEEPEST 40u
#define FP_WORDS 3u
#define WORDS 600u
#define POOL 6000u

static uintptr_t memory[WORDS]; /* the thread's stack; sp is its first word, or one near it */
static struct ls_thread *thread;

/* A call stack: how deep it is, and what lies in the words that unwinding reads. */
static struct stack {
  uint32_t depth, fp_words, sp;
  uint8_t kind;
  uintptr_t pc, fp;
  bool need_fp;
  uintptr_t value[DEEPEST + FP_WORDS];
  uint16_t place[DEEPEST + FP_WORDS]; /* in words above sp */
} pool[POOL];

static uint64_t hash(uint64_t value) { return (value + 1) * 0x9E3779B97F4A7C15ull >> 40; }

/* Where the words lie and how many there are follows from pc, sp and the words before, as it does
 * in an unwind: from the first value that changed on, all is new. */
static void walk(struct stack *stack, uint32_t from) {
  uint32_t n = 0, at = 0;
  uint64_t before = hash(stack->pc * 8 + stack->sp);
  stack->need_fp = before & 1;
  while (n < DEEPEST && (!n || before % 24)) {
    at += 1 + before % 9;
    if (n >= from)
      stack->value[n] = draw() % 1000;
    stack->place[n] = (uint16_t)at;
    before = hash(stack->value[n++]);
  }
  stack->fp_words = stack->pc % (FP_WORDS + 1) < n / 2 ? stack->pc % (FP_WORDS + 1) : n / 2;
  stack->depth = n + 1 - stack->fp_words;
}

/* Most are a change of another one: the same wrapper of malloc, called from elsewhere. */
static void make(uint32_t i, uint32_t alike) {
  struct stack *stack = &pool[i];
  if (i && draw() % 8) {
    *stack = pool[draw() % (i < alike ? i : alike)];
    uint32_t words = stack->depth - 1 + stack->fp_words, changed = draw() % words;
    stack->value[changed] = draw() % 1000;
    walk(stack, draw() % 2 ? words : changed + 1);
    if (draw() % 16 == 0)
      stack->kind ^= 1;
    if (draw() % 16 == 0)
      stack->fp = draw();
    return;
  }
  *stack = (struct stack){
      .sp = draw() % 4, .kind = draw() % 2, .pc = 0x400000 + draw() % 5, .fp = draw()};
  walk(stack, 0);
}

static bool is_same(const struct stack *a, const struct stack *b) {
  uint32_t words = a->depth - 1 + a->fp_words;
  return a->depth == b->depth && a->fp_words == b->fp_words && a->sp == b->sp &&
         a->kind == b->kind && a->pc == b->pc && a->need_fp == b->need_fp &&
         (!a->need_fp || a->fp == b->fp) && !memcmp(a->value, b->value, words * sizeof *a->value) &&
         !memcmp(a->place, b->place, words * sizeof *a->place);
}

static void write(const struct stack *stack) {
  for (uint32_t i = 0; i < WORDS; i++) /* what else lies there is of no interest */
    memory[i] = draw();
  for (uint32_t w = 0; w < stack->depth - 1 + stack->fp_words; w++)
    memory[stack->sp + stack->place[w]] = stack->value[w];
}

/* What an unwind leaves behind: frame 0 is the outermost, the words are read from the innermost. */
static void unwind(const struct stack *stack, uint32_t node) {
  const uintptr_t *sp = memory + stack->sp;
  thread->depth = stack->depth;
  for (uint32_t k = 0; k < stack->depth; k++) {
    uint32_t outwards = k < stack->fp_words ? k : stack->fp_words;
    thread->frames[k] = (struct ls_frame){
        .pc = 1, .sp = 1, .node = node * DEEPEST + k + 1, .fp_checks = (uint16_t)outwards};
  }
  struct ls_frame *leaf = &thread->frames[stack->depth - 1];
  leaf->pc = stack->pc;
  leaf->sp = (uintptr_t)sp;
  leaf->fp = stack->fp;
  leaf->need_fp = stack->need_fp;
  uint32_t w = 0;
  for (uint32_t k = stack->depth - 1; k-- > 0;) {
    thread->ra_checks[k] = (struct ls_check){sp + stack->place[w], stack->value[w]};
    w++;
    for (uint32_t c = thread->frames[k].fp_checks; c < thread->frames[k + 1].fp_checks; c++, w++)
      thread->fp_checks[c] = (struct ls_check){sp + stack->place[w], stack->value[w]};
  }
  CHECK(w == stack->depth - 1 + stack->fp_words);
}

static const struct ls_kept_stack *find(const struct stack *stack) {
  return ls_kept_find(thread, stack->kind, stack->pc, (uintptr_t)(memory + stack->sp), stack->fp);
}

/* The program allocates from stack i of the pool. Returns whether it was found. */
static bool allocate(uint32_t i) {
  static struct lsr_counter counters[2];
  const struct stack *stack = &pool[i];
  write(stack);
  const struct ls_kept_stack *kept = find(stack);
  if (kept) {
    CHECK(kept->site < POOL && is_same(&pool[kept->site], stack));
    CHECK(kept->counter == &counters[kept->site % 2]);
    return true;
  }
  unwind(stack, i);
  ls_kept_add(thread, stack->kind, i, &counters[i % 2]);
  return false;
}

/* So many stacks, met at random: none is mistaken. Returns the share found of the last thousand. */
static double meet(uint32_t stacks, unsigned times) {
  unsigned found = 0;
  for (unsigned turn = 0; turn < times; turn++)
    found += allocate(draw() % stacks) && turn + 1000 >= times;
  return found / 1000.0;
}

int main(void) {
  thread = aligned_alloc(64, (sizeof *thread + 63) & ~63ul);
  memset(thread, 0, sizeof *thread);
  thread->stack_low = (uintptr_t)memory;
  thread->stack_high = (uintptr_t)(memory + WORDS);
  for (uint32_t i = 0; i < POOL; i++)
    make(i, 40);

  /* Met once: not kept. Twice: kept. */
  CHECK(!allocate(0) && !allocate(0) && allocate(0) && allocate(0));
  ls_kept_forget(thread);
  CHECK(!allocate(0) && !allocate(0) && allocate(0));

  CHECK(meet(30, 5000) > 0.5);
  CHECK(meet(100, 30000) > 0.25);
  meet(POOL, 60000); /* more than there is room for */
  ls_kept_forget(thread);
  CHECK(meet(30, 5000) > 0.5);

  /* A kept stack of which one word differs now is not found, whichever word it is. */
  for (uint32_t i = 0; i < 30; i++) {
    const struct stack *stack = &pool[i];
    uint32_t words = stack->depth - 1 + stack->fp_words;
    for (uint32_t w = 0; w < words; w++) {
      write(stack);
      memory[stack->sp + stack->place[w]] = 1000; /* no stack has it */
      CHECK(!find(stack));
    }
  }

  /* Too deep to be kept, or the depot is full: not kept, and no harm done. */
  write(&pool[0]);
  for (unsigned turn = 0; turn < 3; turn++) {
    unwind(&pool[0], 0);
    thread->frames[thread->depth - 1].node = 0;
    ls_kept_add(thread, 7, 0, NULL);
    CHECK(!ls_kept_find(thread, 7, pool[0].pc, (uintptr_t)(memory + pool[0].sp), pool[0].fp));
  }
  puts("ok");
  return 0;
}
