// SPDX-License-Identifier: Apache-2.0
// C++: a hundred thousand exceptions through frames with destructors, and none is lost.
// leaks: none
// stdout: 100000 caught\n
// variants: O0 O2 aarch64
#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

#include "program.h"

namespace {

__attribute__((noinline)) void dive(int left) {
  std::vector<int> held(static_cast<std::size_t>(left) + 1);
  keep(held.data());
  if (left == 0)
    throw std::runtime_error("a message that is too long for the small string");
  dive(left - 1);
  keep(&held);
}

} // namespace

int main() {
  int caught = 0;
  for (int i = 0; i < 100000; i++) {
    try {
      dive(i % 6);
    } catch (const std::exception &) {
      caught++;
    }
  }
  std::printf("%d caught\n", caught);
}
