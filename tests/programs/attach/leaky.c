/* SPDX-License-Identifier: Apache-2.0 */
/* Allocates, resizes and frees all the time, checks what it reads, and loses one block in twenty in
 * lost(): that line is to be named. Prints WRONG and ends when memory is not what it wrote. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MOST 2000000
void *kept[MOST]; /* not static: the compiler would leave it out */
static int count;

__attribute__((noinline)) static void *lost(int i) { return malloc(24 + i % 100); }

__attribute__((noinline)) static void work(int i) {
  int size = 200 + i % 3000;
  char *text = malloc(size);
  memset(text, i, size);
  text = realloc(text, size * 2);
  for (int k = 0; k < size; k += 37)
    if (text[k] != (char)i) {
      puts("WRONG");
      exit(9);
    }
  free(text);
  char *zeros = calloc(3, i % 50 + 1);
  if (zeros[i % 50]) {
    puts("WRONG zeros");
    exit(9);
  }
  free(zeros);
  if (i % 20 == 0 && count < MOST)
    kept[count++] = lost(i);
}

int main(void) {
  setvbuf(stdout, NULL, _IONBF, 0);
  for (int i = 0;; i++) {
    work(i);
    if (i % 200 == 0)
      usleep(1000);
  }
}
