// SPDX-License-Identifier: Apache-2.0
// A plugin with operators of its own, which end in malloc and free and leave no frame.
#include <cstdlib>
#include <new>

void *operator new(std::size_t size) { return std::malloc(size); }
void *operator new[](std::size_t size) { return std::malloc(size); }
void operator delete(void *block) noexcept { std::free(block); }
void operator delete(void *block, std::size_t) noexcept { std::free(block); }
void operator delete[](void *block) noexcept { std::free(block); }
void operator delete[](void *block, std::size_t) noexcept { std::free(block); }

extern "C" int *plugin_make() { return new int(1); }
extern "C" void plugin_drop(int *one) { delete one; }
