// SPDX-License-Identifier: Apache-2.0
// What a debugger, and so a core file, sees of the signal that a process dies of.
// crashinfo null|bus|fpe|abort|queue: the last stop for the signal before the child's death.
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <elf.h>
#include <unistd.h>

static volatile int zero;

static void crash(const char *how) {
  if (!strcmp(how, "null"))
    *(volatile int *)0x1234 = 1;
  if (!strcmp(how, "bus")) {
    int fd = open("/proc/self/exe", O_RDONLY);
    volatile char *p = mmap((void *)0x20000000, 1 << 30, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 0);
    p[1 << 29];
  }
  if (!strcmp(how, "fpe"))
    zero = 7 / zero;
  if (!strcmp(how, "abort"))
    abort();
  if (!strcmp(how, "queue"))
    sigqueue(getpid(), SIGTERM, (union sigval){.sival_int = 77});
}

int main(int argc, char **argv) {
  pid_t child = fork();
  if (child == 0) {
    free(malloc(100));
    ptrace(PTRACE_TRACEME, 0, 0, 0);
    crash(argv[1]);
    _exit(0);
  }
  siginfo_t info, last = {0};
  unsigned long words[64] = {0};
  int status;
  while (waitpid(child, &status, 0) > 0 && WIFSTOPPED(status)) {
    struct iovec vector = {words, sizeof words};
    ptrace(PTRACE_GETSIGINFO, child, 0, &info);
    ptrace(PTRACE_GETREGSET, child, NT_PRSTATUS, &vector);
    last = info;
    ptrace(PTRACE_CONT, child, 0, WSTOPSIG(status));
  }
#ifdef __x86_64__
  unsigned long pc = words[16];
#else
  unsigned long pc = words[32];
#endif
  int sent = last.si_code <= 0;
  printf("signal %d code %d address %lx value %d own %d, at %s, status %x\n", last.si_signo, last.si_code,
         sent ? 0 : (long)last.si_addr, last.si_code == SI_QUEUE ? last.si_value.sival_int : 0,
         sent && last.si_pid == child,
         pc - (unsigned long)crash < 0x400 ? "crash" : "elsewhere", status & 0x7f);
  return 0;
}
