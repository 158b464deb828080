// SPDX-License-Identifier: Apache-2.0
// C++: loses objects and arrays, and grows a registry that still points to its elements.
// expect OBJECT: leaking lost
// expect ARRAY: leaking lost
// expect ELEMENT: growing
// leaks: OBJECT ARRAY
#include <string>
#include <vector>

#include "program.h"

namespace {

struct Widget {
  int values[16] = {};
  virtual ~Widget() = default;
};

std::vector<std::string *> &registry() {
  static auto *all = new std::vector<std::string *>;
  return *all;
}

void turn(int number) {
  auto *widget = new Widget; // OBJECT HERE
  keep(widget);
  auto *numbers = new int[number % 50 + 1]; // ARRAY HERE
  keep(numbers);
  registry().push_back(new std::string); // ELEMENT HERE
}

} // namespace

int main() {
  registry().reserve(1000);
  for (int i = 0; i < 400; i++) {
    turn(i);
    nap_us(1000);
  }
}
