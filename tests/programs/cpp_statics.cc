// SPDX-License-Identifier: Apache-2.0
// C++: objects that live from before main to after it; their destructors free everything.
// leaks: none
// stdout: 1000 held\n
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "program.h"

namespace {

struct Registry {
  std::vector<std::unique_ptr<std::string>> names;
  Registry() {
    for (int i = 0; i < 1000; i++)
      names.push_back(std::make_unique<std::string>(60, 'n'));
  }
  ~Registry() { std::printf("%zu held\n", names.size()); }
};

Registry registry;
thread_local std::string local(100, 't');

} // namespace

int main() {
  keep(local.data());
  for (int i = 0; i < 300; i++)
    nap_us(1000);
}
