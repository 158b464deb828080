// SPDX-License-Identifier: Apache-2.0
/* Fills its tables while it starts (argument 1: ms), serves without growing (argument 2: ms), frees all at its end. Nothing leaks, nothing grows. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static char *table[200], *names[200];
static void load(int ms) {
  for (int i = 0; i < 200; i++) {
    table[i] = malloc(500); memset(table[i], 1, 500);        /* TABLE */
    names[i] = strdup("a name in the table");                 /* NAME */
    usleep(ms * 1000 / 200);
  }
}
static void serve(int ms) { for (int i = 0; i < ms / 10; i++) { char *r = malloc(300); memset(r, 2, 300); usleep(10000); free(r); } }
int main(int argc, char **argv) {
  load(argc > 1 ? atoi(argv[1]) : 150);
  serve(argc > 2 ? atoi(argv[2]) : 2000);
  for (int i = 0; i < 200; i++) free(table[i]), free(names[i]);
  puts("plateau done");
  return 0;
}
