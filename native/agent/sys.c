// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Signal handlers without libc.
 */
#include "sys.h"

#include "str.h"

long (*ls_sealed_call)(long number, const long arguments[6]);
int ls_no_cycle_counter;

#define SIGNAL_RESTORER 0x04000000ul
#define SIGNAL_ONSTACK 0x08000000ul
#define SIGNAL_RESTART 0x10000000ul

/* The very instructions every unwinder knows a signal frame by. The leading nop keeps a
 * look-up of "return address - 1" inside. */
void ls_restore_rt(void) __attribute__((visibility("hidden")));
#ifdef __x86_64__
__asm__(".text\n.balign 16\nnop\n.hidden ls_restore_rt\n.globl ls_restore_rt\n"
        ".type ls_restore_rt, @function\n"
        "ls_restore_rt:\nmov $15, %rax\nsyscall\n"
        ".size ls_restore_rt, . - ls_restore_rt\n");
#else
__asm__(".text\n.balign 16\nnop\n.hidden ls_restore_rt\n.globl ls_restore_rt\n"
        ".type ls_restore_rt, %function\n"
        "ls_restore_rt:\nmov x8, #139\nsvc #0\n"
        ".size ls_restore_rt, . - ls_restore_rt\n");
#endif

int ls_signal_action(int number, void (*handler)(int), unsigned long flags) {
  struct ls_sigaction action;
  memset(&action, 0, sizeof action);
  action.handler = handler;
  action.flags = SIGNAL_RESTORER | flags;
  action.restorer = ls_restore_rt;
  return ls_rt_sigaction(number, &action, NULL);
}

int ls_signal_handler(int number, void (*handler)(int)) {
  return ls_signal_action(number, handler, SIGNAL_ONSTACK | SIGNAL_RESTART);
}
