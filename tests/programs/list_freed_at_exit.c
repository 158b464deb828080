// SPDX-License-Identifier: Apache-2.0
// Grows a list for as long as it runs and frees it at the end, as a job does: growth, and no leak.
// expect LIST: growing
// leaks: none
// variants: O0 O2 musl
#include <stdlib.h>
#include <string.h>

#include "program.h"

struct entry {
  struct entry *next;
  char text[248];
};

static struct entry *history;

static void remember(int number) {
  struct entry *entry = malloc(sizeof *entry); // LIST HERE
  memset(entry->text, number, sizeof entry->text);
  entry->next = history;
  history = entry;
}

int main(void) {
  for (int i = 0; i < 600; i++) {
    remember(i);
    nap_us(1000);
  }
  while (history != NULL) {
    struct entry *next = history->next;
    free(history);
    history = next;
  }
  return 0;
}
