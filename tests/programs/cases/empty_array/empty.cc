// SPDX-License-Identifier: Apache-2.0
// An empty array of objects with destructors: the program has a pointer right behind its only
// block, which is as large as the number of its elements. An array of 77 bytes is lost.
#include <cstdio>
#include <cstdlib>
#include <cstring>
struct Guard { ~Guard() { std::puts("gone"); } char text[100]; };
static Guard *volatile empty[20];
static __attribute__((noinline)) void set_up(int count) {
  for (auto &each : empty) each = new Guard[count];
  char *volatile lost = new char[77];
  lost = nullptr;
}
static __attribute__((noinline)) void wipe() { volatile char b[8192]; std::memset((void *)b, 0, sizeof b); }
int main(int argc, char **) {
  set_up(argc - 1);
  wipe();
  return 0;
}
