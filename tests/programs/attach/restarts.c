/* SPDX-License-Identifier: Apache-2.0 */
/* Lives in a restartable sequence (rseq), which the kernel begins anew when the thread is
 * interrupted: what allocators with a cache for each processor are made of. Prints WRONG when it comes
 * to the end of one that the kernel does not know of any more. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/rseq.h>

int main(void) {
  setvbuf(stdout, NULL, _IONBF, 0);
  free(malloc(1));
  struct rseq *area = (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
  if (!__rseq_size) {
    puts("WRONG: no rseq");
    return 1;
  }
  int wrong = 0;
  volatile uint64_t *place = (volatile uint64_t *)((char *)area + 8);
  for (uint64_t restarts = 0;; restarts++) {
    __asm__ volatile(".pushsection .data.rseq, \"aw\"\n\t.balign 32\n"
                     "3: .long 0, 0\n\t.quad 1f, 2f - 1f, 4f\n\t.popsection\n\t"
                     "lea 3b(%%rip), %%rax\n\t"
                     "mov %%rax, %0\n"
                     "1: mov $200000000, %%rcx\n"
                     "5: dec %%rcx\n\t"
                     "jnz 5b\n"
                     "2: lea 3b(%%rip), %%rax\n\t"
                     "cmp %%rax, %0\n\t"
                     "je 6f\n\t"
                     "movl $1, %1\n\t"
                     "jmp 6f\n\t"
                     ".long 0x53053053\n"
                     "4: nop\n"
                     "6:"
                     : "+m"(*place), "+m"(wrong)
                     :
                     : "rax", "rcx", "memory");
    if (wrong) {
      puts("WRONG: went on in the middle");
      return 1;
    }
  }
}
