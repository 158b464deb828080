// SPDX-License-Identifier: Apache-2.0
// C++: every form of new, each matched by its delete; alignment and nothrow are honoured.
// leaks: none
// stdout: matched\n
// build: -std=c++17
#include <cstdint>
#include <cstdio>
#include <initializer_list>
#include <limits>
#include <memory>
#include <new>

#include "program.h"

namespace {

struct alignas(128) Wide {
  char bytes[256];
};

volatile std::size_t huge = std::numeric_limits<std::ptrdiff_t>::max() - 100;

bool one_round() {
  int *one = new int(1);
  int *many = new int[100];
  int *quiet = new (std::nothrow) int(2);
  char *quiet_many = new (std::nothrow) char[1000];
  Wide *wide = new Wide;
  Wide *wide_many = new Wide[3];
  Wide *wide_quiet = new (std::nothrow) Wide;
  bool fine = reinterpret_cast<std::uintptr_t>(wide) % 128 == 0 &&
              reinterpret_cast<std::uintptr_t>(wide_many) % 128 == 0 &&
              reinterpret_cast<std::uintptr_t>(wide_quiet) % 128 == 0;
  for (void *block : {static_cast<void *>(one), static_cast<void *>(many),
                      static_cast<void *>(quiet), static_cast<void *>(quiet_many),
                      static_cast<void *>(wide), static_cast<void *>(wide_many)})
    keep(block);
  delete one;
  delete[] many;
  delete quiet;
  delete[] quiet_many;
  delete wide;
  delete[] wide_many;
  ::operator delete(wide_quiet, std::align_val_t{128}, std::nothrow);
  ::operator delete(::operator new(64), std::size_t{64});
  fine = fine && new (std::nothrow) char[huge] == nullptr;
  try {
    keep(new char[huge]);
    fine = false;
  } catch (const std::bad_alloc &) {
  }
  auto shared = std::make_shared<Wide>();
  return fine && shared.use_count() == 1;
}

} // namespace

int main() {
  for (int i = 0; i < 300; i++) {
    if (!one_round())
      return 1;
    nap_us(500);
  }
  std::puts("matched");
}
