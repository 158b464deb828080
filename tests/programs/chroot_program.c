// SPDX-License-Identifier: Apache-2.0
// Changes its root to an empty folder: no /proc, no /dev, no libraries from there on.
// expect LEAK: leaking lost
// leaks: LEAK
// stdout: inside\n
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "program.h"

int main(void) {
  char folder[] = "/tmp/leakscope-chroot-XXXXXX";
  if (mkdtemp(folder) == NULL)
    return 1;
  if (geteuid() != 0 && unshare(CLONE_NEWUSER) != 0)
    return 2;
  if (chdir(folder) != 0 || rmdir(folder) != 0 || chroot(".") != 0)
    return 3;
  for (int i = 0; i < 400; i++) {
    for (int k = 0; k < 50; k++)
      keep(malloc(40)); // LEAK HERE
    nap_us(800);
  }
  puts("inside");
  return 0;
}
