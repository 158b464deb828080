/* SPDX-License-Identifier: Apache-2.0 */
/* Lives in a restartable sequence (rseq), which the kernel begins anew when the thread is
 * interrupted: what allocators with a cache for each processor are made of. */
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
  volatile uint64_t *place = (volatile uint64_t *)((char *)area + 8);
  for (uint64_t restarts = 0;; restarts++)
    __asm__ volatile(".pushsection .data.rseq, \"aw\"\n\t.balign 32\n"
                     "3: .long 0, 0\n\t.quad 1f, 2f - 1f, 4f\n\t.popsection\n\t"
                     "lea 3b(%%rip), %%rax\n\t"
                     "mov %%rax, %0\n"
                     "1: mov $2000000000, %%rcx\n"
                     "5: dec %%rcx\n\t"
                     "jnz 5b\n"
                     "2: jmp 6f\n\t"
                     ".long 0x53053053\n"
                     "4: nop\n"
                     "6:"
                     : "=m"(*place)
                     :
                     : "rax", "rcx", "memory");
}
