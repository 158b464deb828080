// SPDX-License-Identifier: Apache-2.0
// Analyse every dump that is named, whatever is in it; for the sanitizers to look at.
#include "hprof.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct heap *lsh_open(int, uint64_t, uint64_t, int, uint64_t);
int lsh_index(struct heap *);
int lsh_link(struct heap *, const struct link *);
int lsh_measure(struct heap *, const struct sizes *);
int lsh_dominate(struct heap *, uint32_t);
void lsh_dominated(const struct heap *, uint32_t, uint8_t *);
const void *lsh_table(const struct heap *, int, uint64_t *);
void lsh_free(struct heap *);

static int analyse(const char *path, uint32_t rules, uint64_t limit) {
  int fd = open(path, O_RDONLY);
  struct stat status;
  if (fd < 0 || fstat(fd, &status))
    return 1;
  uint8_t head[64] = {0};
  ssize_t got = pread(fd, head, sizeof head - 1, 0);
  size_t end = strnlen((char *)head, sizeof head - 14);
  int id_size = got > 0 && head[end + 4] == 4 ? 4 : 8;
  struct heap *heap = lsh_open(fd, end + 13, (uint64_t)status.st_size, id_size, limit);
  int result = heap ? lsh_index(heap) : -1;
  if (!result) {
    uint32_t classes = (uint32_t)heap->classes.count;
    struct link link;
    uint32_t *words = (uint32_t *)&link;
    for (size_t i = 0; i < sizeof link / 4; i++)
      words[i] = classes ? (uint32_t)i % classes : NONE;
    link.referent = 0;
    link.rules = rules;
    result = lsh_link(heap, &link);
  }
  if (!result)
    result = lsh_measure(heap, &(struct sizes){12, 16, 4, 8, 8, 1, 1});
  if (!result)
    result = lsh_dominate(heap, rules);
  if (!result && heap->objects.count) {
    uint8_t *inside = calloc(1, heap->objects.count);
    lsh_dominated(heap, (uint32_t)heap->objects.count / 2, inside);
    free(inside);
  }
  uint64_t count;
  for (int table = 0; table < 23 && heap; table++)
    lsh_table(heap, table, &count);
  if (heap && heap->facts.memory > limit)
    return 1;
  lsh_free(heap);
  close(fd);
  return 0;
}

int main(int argc, char **argv) {
  for (int i = 1; i < argc; i++)
    for (uint32_t rules = 0; rules < 8; rules += 3)
      if (analyse(argv[i], rules, rules == 6 ? 100000 : (uint64_t)1 << 30)) {
        printf("failed: %s\n", argv[i]);
        return 1;
      }
  puts("ok");
  return 0;
}
