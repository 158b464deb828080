// SPDX-License-Identifier: Apache-2.0
// A program that tools are tried on before anything is measured: it allocates 100 MB, loses 10,000
// blocks, and says what it sees of the tool in its own process.
#include <dlfcn.h>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

constexpr int kBlocks = 200000, kBytes = 512, kLost = 10000;

__attribute__((noinline)) static void *allocate() {
  return ::operator new(kBytes);
}

// tcmalloc, asked for the stacks that it has sampled.
static void tell_samples() {
  auto instance = (void *(*)())dlsym(RTLD_DEFAULT, "_ZN15MallocExtension8instanceEv");
  auto sample = (void (*)(void *, std::string *))dlsym(
      RTLD_DEFAULT, "_ZN15MallocExtension13GetHeapSampleEPNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE");
  if (!instance || !sample)
    return;
  std::string text;
  sample(instance(), &text);
  if (text.find("@ 0x") != std::string::npos)
    std::cout << "tcmalloc has samples\n";
}

static void tell_jemalloc() {
  auto ask = (int (*)(const char *, void *, size_t *, void *, size_t))dlsym(RTLD_DEFAULT, "mallctl");
  bool active = false;
  size_t size = sizeof active;
  if (ask && !ask("prof.active", &active, &size, nullptr, 0) && active)
    std::cout << "jemalloc profiles\n";
}

int main() {
  std::vector<void *> kept;
  for (int i = 0; i < kBlocks; i++)
    kept.push_back(allocate());
  tell_samples();
  tell_jemalloc();
  for (int i = kLost; i < kBlocks; i++)
    ::operator delete(kept[i]);
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);)
    if (auto at = line.find('/'); at != std::string::npos)
      std::cout << "mapped " << line.substr(at) << "\n";
  kept.clear();
  kept.shrink_to_fit();
}
