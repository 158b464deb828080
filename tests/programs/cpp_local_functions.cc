// SPDX-License-Identifier: Apache-2.0
// C++: loses blocks in a lambda and in a method of a local class, inside inlined library code.
// expect LAMBDA: leaking lost
// expect LOCAL: leaking lost
// leaks: LAMBDA LOCAL
#include <functional>
#include <memory>
#include <vector>

#include "program.h"

int main() {
  struct Local {
    static void __attribute__((noinline)) grow(int n) {
      auto block = std::make_unique<std::vector<long>>(); // LOCAL HERE
      keep(block.release());
      (void)n;
    }
  };
  std::function<void(int)> work = [](int n) {
    auto block = std::make_unique<long[]>(n); // LAMBDA HERE
    keep(block.release());
  };
  for (int i = 0; i < 400; i++) {
    work(100 + i % 3);
    Local::grow(i);
    nap_us(1000);
  }
  return 0;
}
