// SPDX-License-Identifier: Apache-2.0
// Nothing is hidden: numbers, ends of arrays and text near 70 lost blocks of 28,488 B.
#include <obstack.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <vector>
#define obstack_chunk_alloc malloc
#define obstack_chunk_free free
#define NOINLINE __attribute__((noinline))
struct Chunk { Chunk *next; char *now, *end; };
struct Base { int k; };
struct Derived : Base { char *text = new char[300](); };
static struct obstack kept;
static Chunk *chunks[5];
static uint32_t offsets[4096], all[65536];
static uint64_t long_offsets[1024];
NOINLINE static Chunk *chunk() {
  Chunk *c = (Chunk *)malloc(8192);
  memset(c, 'y', 8192);
  c->next = nullptr;
  c->now = (char *)(c + 1);
  c->end = (char *)c + 8192;
  return c;
}
NOINLINE static void lose(int i) {
  struct obstack o;
  if (i < 3) {
    obstack_init(&o);
    for (int k = 0; k < 20; k++) obstack_copy(&o, "hello", 6);
    memset(&o, 0, sizeof o);
  }
  if (i == 3) chunk();
  Base *volatile object = new Derived;
  delete object; // the text stays
  auto *volatile values = new std::vector<int>;
  values->reserve(100);
}
NOINLINE static void lose_small(int i) {
  char *volatile p = (char *)malloc(24);
  *p = (char)i;
}
NOINLINE static void wipe() {
  volatile char b[65536];
  memset((void *)b, 0, sizeof b);
}
int main() {
  for (int i = 0; i < 4096; i++) offsets[i] = 16 * i;
  for (int i = 0; i < 65536; i++) all[i] = i;
  for (int i = 0; i < 1024; i++) long_offsets[i] = 112 * i;
  obstack_init(&kept);
  for (int i = 0; i < 2000; i++) obstack_copy(&kept, "0123456789", 11);
  for (int i = 0; i < 5; i++) chunks[i] = chunk();
  for (int i = 0; i < 10; i++) lose(i);
  for (int i = 0; i < 36; i++) lose_small(i);
  wipe();
  return offsets[1] + all[1] + long_offsets[1] + (chunks[0] == nullptr) == 0;
}
