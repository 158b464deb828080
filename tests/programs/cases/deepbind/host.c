// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
int main(int argc, char **argv) {
  int flags = RTLD_NOW | (argc > 1 && !strcmp(argv[1], "deep") ? RTLD_DEEPBIND : 0);
  void *h = dlopen("./plugin.so", flags);
  if (!h) { puts(dlerror()); return 3; }
  void (*release)(char *) = (void (*)(char *))dlsym(h, "plugin_release");
  void (*forget)(void) = (void (*)(void))dlsym(h, "plugin_forget");
  for (int i = 0; i < 2000; i++) {
    char *record = malloc(64 + i % 1000 * 16); /* host makes, plugin frees: no leak */
    memset(record, 2, 64);
    release(record);
    if (i % 20 == 0) { forget(); usleep(5000); }
  }
  puts("host done");
  return 7;
}
