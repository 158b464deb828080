// SPDX-License-Identifier: Apache-2.0
// Containers that a static pointer keeps are reachable; those behind a lost pointer are lost whole.
// expect MAP: lost
// leaks: MAP NODE
// expect NODE: lost
#include <list>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

struct Left {
  virtual ~Left() = default;
  long left = 1;
};
struct Right {
  virtual ~Right() = default;
  long right = 2;
};
struct Both : Left, Right {
  long both = 3;
};
struct Counted {
  ~Counted() { n = 0; }
  long n = 1;
};

static auto *names = new std::vector<std::string>{"a name that is too long to be kept inside", "b"};
static auto *index_of = new std::unordered_map<int, std::string>{{1, "one"}, {2, "two"}};
static auto *order = new std::list<std::shared_ptr<int>>{std::make_shared<int>(1)};
static Right *base = new Both;           // points into the object
static Counted *array = new Counted[50]; // points behind the count

static std::map<int, long> *volatile lost;

static void lose() {
  lost = new std::map<int, long>; // MAP HERE
  for (int i = 0; i < 20; i++)
    lost->emplace(i, i); // NODE HERE
}

int main() {
  lose();
  lost = nullptr;
  return names && index_of && order && base && array ? 0 : 1;
}
