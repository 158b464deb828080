// SPDX-License-Identifier: Apache-2.0
/* Blocks whose addresses are kept in another form: ten of each kind; one block of 999 bytes is lost. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#define N 10
#pragma pack(push, 1)
struct packed { char kind; void *block; };
#pragma pack(pop)
static struct packed packed[N];
static uint64_t high[N], shifted[N], pages[N], doubled[N], boxed[N];
struct node { uint64_t next; char text[80]; }; /* a list whose links have a tag in the high bits */
static uint64_t list;
struct halves { uint16_t high; uint32_t low; };
struct halves halves[N];
static __attribute__((noinline)) void set_up(void) {
  for (int i = 0; i < N; i++) {
    packed[i] = (struct packed){1, calloc(1, 200)};
    high[i] = (uintptr_t)calloc(1, 201) | 0x42ull << 56;
    shifted[i] = (uintptr_t)calloc(1, 202) >> 3;
    void *page;
    if (posix_memalign(&page, 4096, 4096)) exit(2);
    pages[i] = (uintptr_t)page >> 12;
    doubled[i] = (uintptr_t)calloc(1, 203) << 1 | 1ull << 63;
    boxed[i] = (uintptr_t)calloc(1, 204) << 16;
    uintptr_t half = (uintptr_t)calloc(1, 205);
    halves[i] = (struct halves){half >> 32, (uint32_t)half};
    struct node *node = calloc(1, sizeof *node);
    node->next = list;
    list = (uintptr_t)node | 0x7ull << 60;
  }
  char *volatile lost = calloc(1, 999);
  lost = NULL;
}
static __attribute__((noinline)) void wipe(void) { volatile char b[8192]; memset((void *)b, 0, sizeof b); }
int main(void) {
  set_up();
  wipe();
  printf("ready %llu\n", (unsigned long long)(list + packed[3].kind + high[1] + shifted[1] + pages[1] + doubled[1] + boxed[1]));
  return 0;
}
