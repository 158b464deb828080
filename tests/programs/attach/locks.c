/* SPDX-License-Identifier: Apache-2.0 */
/* Allocates. Locks what it maps from now on (future), or all that it has as soon as it gets SIGUSR1
 * (later); prints WRONG when that fails, or when more than 100 MiB of it are in memory. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static volatile sig_atomic_t asked;

static void ask(int number) {
  (void)number;
  asked = 1;
}

static long resident_mib(void) {
  long all = 0, there = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  if (!file || fscanf(file, "%ld %ld", &all, &there) != 2)
    puts("WRONG: statm");
  fclose(file);
  return there * 4096 >> 20;
}

int main(int count, char **arguments) {
  setvbuf(stdout, NULL, _IONBF, 0);
  signal(SIGUSR1, ask);
  void *reserved = mmap(NULL, 256 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (reserved == MAP_FAILED ||
      (count > 1 && !strcmp(arguments[1], "future") && mlockall(MCL_FUTURE)))
    puts("WRONG: setup");
  for (int i = 0;; i++) {
    void *volatile block = malloc(100);
    free(block);
    usleep(500);
    if (asked) {
      asked = 0;
      munmap(reserved, 256 << 20);
      puts(mlockall(MCL_CURRENT) ? "WRONG: mlockall" : "locked");
    }
    if (i % 200 == 0 && resident_mib() > 100)
      puts("WRONG: too much is in memory");
  }
}
