// SPDX-License-Identifier: Apache-2.0
// A healthy program. With OWN: operators of its own; with PLUGIN: the plugin's beside the library's.
#include <algorithm>
#include <cstdlib>
#include <dlfcn.h>
#include <map>
#include <memory>
#include <new>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#ifdef OWN
void *operator new(std::size_t size) {
  if (char *block = static_cast<char *>(std::malloc(size + 16)))
    return block + 16;
  throw std::bad_alloc();
}
void operator delete(void *block) noexcept {
  if (block)
    std::free(static_cast<char *>(block) - 16);
}
void operator delete(void *block, std::size_t) noexcept { ::operator delete(block); }
#endif
#ifdef OWN_DELETE
void operator delete(void *block) noexcept { std::free(block); }
void operator delete(void *block, std::size_t) noexcept { std::free(block); }
#endif

int main() {
  std::map<int, std::string> map;
  for (int i = 0; i < 2000; i++)
    map[i] = std::string(i % 300, 'x');
  std::vector<int> numbers(10000);
  for (int &number : numbers)
    number = std::rand();
  std::stable_sort(numbers.begin(), numbers.end());
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; i++)
    threads.emplace_back([] {
      for (int j = 0; j < 1000; j++)
        std::vector<std::string>(5, *std::make_shared<std::string>(j % 200, 'a'));
    });
  for (std::thread &thread : threads)
    thread.join();
  std::ostringstream text;
  text << map.size();
  delete[] new std::string[20];
  std::free(std::realloc(std::realloc(nullptr, 10), 100000));
  if (void *empty = std::realloc(std::malloc(10), 0))
    std::free(empty);
#ifdef PLUGIN
  void *plugin = dlopen(PLUGIN, RTLD_NOW | RTLD_LOCAL);
  auto make = reinterpret_cast<int *(*)()>(dlsym(plugin, "plugin_make"));
  auto drop = reinterpret_cast<void (*)(int *)>(dlsym(plugin, "plugin_drop"));
  for (int i = 0; i < 10; i++) {
    delete make();
    drop(new int(2));
  }
#endif
  return 0;
}
