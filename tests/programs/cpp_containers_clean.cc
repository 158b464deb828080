// SPDX-License-Identifier: Apache-2.0
// C++: containers that grow, shrink, rehash and are destroyed.
// leaks: none
// stdout: 120 rounds\n
#include <cstdio>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "program.h"

int main() {
  int rounds = 0;
  for (; rounds < 120; rounds++) {
    std::vector<std::string> names;
    std::map<std::string, std::shared_ptr<int>> ordered;
    std::unordered_map<int, std::list<int>> hashed;
    for (int i = 0; i < 200; i++) {
      names.push_back("a name that does not fit a small string " + std::to_string(i));
      ordered[names.back()] = std::make_shared<int>(i);
      hashed[i % 37].push_back(i);
    }
    names.erase(names.begin(), names.begin() + 100);
    keep(&names);
    keep(&ordered);
    nap_us(2000);
  }
  std::printf("%d rounds\n", rounds);
}
