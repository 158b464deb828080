// SPDX-License-Identifier: Apache-2.0
// Forks 40 children that allocate 100 blocks and end, and prints how many page faults each took.
// With the names of two objects that define `lose`: the first is unloaded and the second loaded
// before; each child loses a block of 333 bytes in the second.
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int count, char **words) {
  void *(*lose)(int) = NULL;
  for (int i = 1; i < count; i++) {
    void *object = dlopen(words[i], RTLD_NOW);
    lose = (void *(*)(int))dlsym(object, "lose");
    free(lose(22 * i));
    if (i + 1 < count)
      dlclose(object);
  }
  void *blocks[100];
  for (int i = 0; i < 100; i++)
    blocks[i] = malloc(10 + i);
  for (int n = 0; n < 40; n++) {
    if (!fork()) {
      if (lose)
        lose(333);
      for (int i = 0; i < 100; i++)
        blocks[i] = malloc(30 + i);
      for (int i = 0; i < 100; i++)
        free(blocks[i]);
      _exit(0);
    }
    wait(NULL);
  }
  struct rusage used;
  getrusage(RUSAGE_CHILDREN, &used);
  printf("faults %ld\n", used.ru_minflt / 40);
  return 0;
}
