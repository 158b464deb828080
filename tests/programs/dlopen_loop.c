// SPDX-License-Identifier: Apache-2.0
// Loads and unloads a library whose constructor leaks: its code is gone when the report is made.
// expect LEAK: leaking lost
// leaks: LEAK
// stdout: 300 loads\n
// library: dlopen_loop.lib.c
// build: -ldl
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include "program.h"

int main(void) {
  int loads = 0;
  for (int i = 0; i < 300; i++) {
    void *library = dlopen(LIBRARY, RTLD_NOW);
    if (library == NULL) {
      puts(dlerror());
      return 1;
    }
    int (*answer)(void) = (int (*)(void))dlsym(library, "plugin_answer");
    loads += answer() == 42;
    dlclose(library);
    nap_us(1000);
  }
  printf("%d loads\n", loads);
  return 0;
}
