// SPDX-License-Identifier: Apache-2.0
// For pictures and the tests of the page: so many rounds (argument) of orders. receipt() is lost
// (line 25), the carts are kept and grow (line 19), pictures come and go and leave the allocator
// with free memory: resident memory stays far above what lives.
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PICTURES 2000

struct cart {
  struct cart *next;
  char items[500];
};
static struct cart *carts;
static char *pictures[PICTURES];

static __attribute__((noinline)) void keep_cart(void) {
  struct cart *made = malloc(sizeof *made);
  made->next = carts;
  carts = made;
}

static __attribute__((noinline)) void receipt(int number) {
  char *text = malloc(160);
  memset(text, number, 160);
  if (number % 8)
    free(text);
}

static __attribute__((noinline)) void show(int number) {
  pictures[number] = malloc(2000);
  memset(pictures[number], 1, 2000);
}

static __attribute__((noinline)) void order(int number) {
  keep_cart();
  receipt(number);
}

int main(int count, char **arguments) {
  int rounds = count > 1 ? atoi(arguments[1]) : 10;
  for (int round = 0; round < rounds; round++) {
    for (int i = 0; i < PICTURES; i++)
      if (!pictures[i])
        show(i);
    for (int i = 0; i < 30; i++)
      order(i);
    usleep(25000);
    for (int i = 0; i < PICTURES; i++)
      if (i % 16) {
        free(pictures[i]);
        pictures[i] = NULL;
      }
    usleep(25000);
  }
  return 0;
}
