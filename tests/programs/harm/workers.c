/* SPDX-License-Identifier: Apache-2.0 */
/* Reads by io_uring, for which the kernel makes threads in the process that run no program. */
#define _GNU_SOURCE
#include <linux/io_uring.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static volatile sig_atomic_t ended;
static void end(int number) { ended = 1; }

int main(void) {
  struct io_uring_params p = {0};
  int fd = syscall(SYS_io_uring_setup, 8, &p);
  if (fd < 0) {
    perror("io_uring_setup");
    return 1;
  }
  int both = PROT_READ | PROT_WRITE, how = MAP_SHARED | MAP_POPULATE;
  char *sq = mmap(NULL, p.sq_off.array + p.sq_entries * 4, both, how, fd, IORING_OFF_SQ_RING);
  char *cq = mmap(NULL, p.cq_off.cqes + p.cq_entries * 16, both, how, fd, IORING_OFF_CQ_RING);
  struct io_uring_sqe *entries = mmap(NULL, p.sq_entries * sizeof *entries, both, how, fd, IORING_OFF_SQES);
  unsigned *tail = (unsigned *)(sq + p.sq_off.tail), *array = (unsigned *)(sq + p.sq_off.array);
  unsigned *head = (unsigned *)(cq + p.cq_off.head), *there = (unsigned *)(cq + p.cq_off.tail);
  struct io_uring_cqe *done = (struct io_uring_cqe *)(cq + p.cq_off.cqes);
  int ends[2];
  long wrong = 0;
  char *to = malloc(100);
  signal(SIGUSR1, end);
  if (pipe(ends))
    return 1;
  for (unsigned n = 0; !ended; n++) {
    unsigned at = *tail & (p.sq_entries - 1);
    char letter = 'a' + n % 26;
    entries[at] = (struct io_uring_sqe){.opcode = IORING_OP_READ, .flags = IOSQE_ASYNC, .fd = ends[0], .addr = (unsigned long)to, .len = 1, .off = -1};
    array[at] = at;
    __atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
    wrong += syscall(SYS_io_uring_enter, fd, 1, 0, 0, NULL, 0) != 1;
    usleep(3000);
    wrong += write(ends[1], &letter, 1) != 1;
    while (__atomic_load_n(there, __ATOMIC_ACQUIRE) == *head)
      if (syscall(SYS_io_uring_enter, fd, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0 && !ended)
        wrong++;
    wrong += done[*head & (p.cq_entries - 1)].res != 1 || *to != letter;
    __atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
    if (!n) {
      puts("ready");
      fflush(stdout);
    }
  }
  printf("%ld wrong\n", wrong);
  return 7;
}
