// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * The recording's address space: growth in place, and elsewhere when something is in the way.
 *
 * Tables and the heap grow by random steps; with the argument "blocked" a foreign page lies
 * behind every mapping, so each growth has to go elsewhere. What was written through any
 * pointer that was ever given out is there in the file, at the offset that was told, and
 * nothing of the heap is given out twice. Prints what failed and exits 1.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "alone.h"
#include "space.h"

static unsigned dropped;

long ls_apart(long (*work)(void *), void *argument) { return work(argument); }
void ls_count_drop_anywhere(enum lsr_drop reason) { dropped += reason == LSR_DROP_NO_SPACE; }
void ls_private_unlock(void) {}
int ls_recording_open(void) { return -1; }

static bool blocked;
static void block(void) { /* a page right behind every mapping of the file */
  static char line[600];
  FILE *maps = fopen("/proc/self/maps", "r");
  unsigned long ends[4096];
  size_t n = 0;
  while (blocked && fgets(line, sizeof line, maps) && n < 4096)
    if (strstr(line, "rw-s"))
      sscanf(line, "%*x-%lx", &ends[n++]);
  fclose(maps);
  for (size_t i = 0; i < n; i++)
    mmap((void *)ends[i], 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
}

#define PIECES 1500
static struct {
  uint8_t *at;
  uint64_t offset, bytes, mark;
} piece[PIECES];

int main(int argc, char **argv) {
  blocked = argc > 1 && !strcmp(argv[1], "blocked");
  int fd = memfd_create("space", 0);
  CHECK(fd >= 0);
  struct lsr_header plan;
  memset(&plan, 0, sizeof plan);
  uint64_t at = 32768;
  struct lsr_area *areas = &plan.modules;
  plan.stripes = (struct lsr_area){at, LSR_STRIPES * LSR_STRIPE_HEAD_BYTES, 0};
  at += plan.stripes.reserved;
  for (int i = 0; i < LS_TABLES; i++, at += 4 << 20)
    areas[i] = (struct lsr_area){at, 4 << 20, 0};
  plan.bump = at;
  plan.file_bytes = at + (256 << 20);
  CHECK(ftruncate(fd, (off_t)plan.file_bytes) == 0);
  struct lsr_header *header = ls_space_map(&live, fd, &plan);
  CHECK(header && ls_space_back(&plan, header, 0, 32768));
  *header = plan;
  live.header = header;
  areas = &header->modules;
  block();

  uint32_t *words[400] = {0};
  uint64_t wrote = 0;
  for (int round = 0; round < 400; round++) { /* the nodes, four bytes at a time */
    uint64_t index = (uint64_t)round * 2600;
    bool fits = ls_area_grow(&areas[LS_NODES], (index + 1) * 4);
    if (fits) {
      words[round] = (uint32_t *)live.nodes + index;
      *words[round] = (uint32_t)round + 1;
      wrote++;
    }
    CHECK(fits || blocked);
    block();
  }
  CHECK(wrote > 100);
  for (int round = 0; round < 400; round++) {
    uint32_t value = 0;
    CHECK(pread(fd, &value, 4, (off_t)(areas[LS_NODES].offset + (uint64_t)round * 2600 * 4)) == 4);
    CHECK(!words[round] || (value == (uint32_t)round + 1 && *words[round] == value));
    CHECK(!words[round] || ((uint32_t *)live.nodes)[round * 2600] == value);
  }
  CHECK(!ls_area_grow(&areas[LS_SITES], (4 << 20) + 1));

  uint64_t held = 0, highest = 0;
  for (int step = 0; step < 30000; step++) {
    int i = (int)(draw() % PIECES);
    if (piece[i].at) {
      uint64_t value;
      CHECK(pread(fd, &value, 8, (off_t)(piece[i].offset + piece[i].bytes - 8)) == 8);
      CHECK(value == piece[i].mark && *(uint64_t *)piece[i].at == piece[i].mark);
      ls_heap_release(piece[i].at, piece[i].offset, piece[i].bytes);
      held -= piece[i].bytes;
      piece[i].at = NULL;
    } else {
      uint64_t bytes = (1 + draw() % 8) * 4096;
      uint8_t *taken = ls_heap_take(bytes, &piece[i].offset);
      if (!taken) {
        CHECK(blocked);
        continue;
      }
      for (uint64_t k = 0; k < bytes; k += 512)
        CHECK(!taken[k]);
      piece[i].at = taken;
      piece[i].bytes = bytes;
      piece[i].mark = draw();
      *(uint64_t *)taken = piece[i].mark;
      *(uint64_t *)(taken + bytes - 8) = piece[i].mark;
      held += bytes;
      highest = held > highest ? held : highest;
      if (step % 64 == 0)
        block();
    }
  }
  CHECK(held > 1 << 20);
  CHECK(blocked || header->bump - at < 3 * highest); /* what was given back is used again */
  header->budget_bytes = header->backed_bytes;
  uint64_t none;
  unsigned before = dropped;
  CHECK(!ls_heap_take(1 << 20, &none) && dropped == before + 1);
  ls_unlock_own();
  ls_space_unmap();
  printf("ok\n");
  return 0;
}
