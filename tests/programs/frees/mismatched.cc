// SPDX-License-Identifier: Apache-2.0
// Each allocation function against each function that frees; those that belong together as well.
#include <cstdlib>
#include <new>

#define NOINLINE __attribute__((noipa))

namespace {

struct alignas(128) Wide {
  char bytes[256];
};

NOINLINE void *take() { return std::malloc(40); }
NOINLINE void *one() { return ::operator new(50); }
NOINLINE void *many() { return ::operator new[](60); }
NOINLINE void release(void *block) { std::free(block); asm volatile(""); }
NOINLINE void erase(void *block) { ::operator delete(block); asm volatile(""); }
NOINLINE void erase_array(void *block) { ::operator delete[](block); asm volatile(""); }

} // namespace

int main() {
  for (int i = 0; i < 3; i++) {
    release(one());
    release(many());
  }
  erase(take());
  erase(many());
  erase_array(take());
  erase_array(one());
  void *moved = std::realloc(one(), 500);
  release(moved);

  release(take());
  erase(one());
  erase_array(many());
  ::operator delete(one(), std::size_t{50});
  ::operator delete[](many(), std::size_t{60});
  ::operator delete(::operator new(7, std::nothrow), std::nothrow);
  ::operator delete[](::operator new[](7, std::nothrow), std::nothrow);
  delete new Wide;
  delete[] new Wide[3];
  ::operator delete(nullptr);
  ::operator delete[](nullptr);
  std::free(nullptr);
  return 0;
}
