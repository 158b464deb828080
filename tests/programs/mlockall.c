// SPDX-License-Identifier: Apache-2.0
// Locks all memory, present and future: what leakscope reserves must not become real memory.
// expect LEAK: leaking lost
// leaks: LEAK
// stdout: small\n
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "program.h"

static long resident_kib(void) {
  FILE *status = fopen("/proc/self/status", "re");
  char line[256];
  long kib = -1;
  while (status != NULL && fgets(line, sizeof line, status) != NULL)
    if (sscanf(line, "VmRSS: %ld", &kib) == 1)
      break;
  if (status != NULL)
    fclose(status);
  return kib;
}

int main(void) {
  int refused = mlockall(MCL_CURRENT | MCL_FUTURE);
  for (int i = 0; i < 300; i++) {
    for (int k = 0; k < 20; k++) {
      char *block = malloc(40); // LEAK HERE
      if (block != NULL)
        block[0] = 1;
      keep(block);
    }
    nap_us(1000);
  }
  // A refusal (no privilege) leaves nothing to check; otherwise 256 MiB is far too much.
  puts(refused != 0 || resident_kib() < 262144 ? "small" : "large");
  return 0;
}
