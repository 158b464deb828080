// SPDX-License-Identifier: Apache-2.0
// A parser that loses every second node. Compiled with -DFIXED it frees them all.
#include <cstdio>
#include <cstdlib>
#include <string>

struct Node {
  std::string name;
};

static Node *parse(int number) {
  return new Node{"a name that is too long for the node " + std::to_string(number)};
}

int main(int argc, char **argv) {
  std::size_t read = 0;
  for (int number = 0; number < 1000; number++) {
    Node *node = parse(number);
    read += node->name.size();
#ifdef FIXED
    delete node;
#else
    if (number % 2 == 0) delete node;
#endif
  }
  std::printf("%zu bytes parsed\n", read);
  return argc > 1 ? std::atoi(argv[1]) : 0; // a test that fails, for instance
}
