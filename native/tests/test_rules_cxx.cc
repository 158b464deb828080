// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Frames of C++: a std::thread's start inside libstdc++, a callback through std::function,
 * std::sort and a landing pad, for test_rules.c.
 */
#include <algorithm>
#include <functional>
#include <mutex>
#include <regex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

struct Guard {
  std::function<void()> at_end;
  ~Guard() { at_end(); }
};

void throw_through(const std::function<void()> &what, int depth) {
  Guard guard{[&] { if (depth == 2) what(); }};
  if (depth == 0)
    throw std::runtime_error("unwound");
  throw_through(what, depth - 1);
}

}  // namespace

extern "C" void run_in_cxx(void (*what)()) {
  std::thread([&] { what(); }).join();
  std::vector<std::string> words{"b", "a", "c"};
  bool done = false;
  std::sort(words.begin(), words.end(), [&](const auto &a, const auto &b) {
    if (!done) {
      done = true;
      what();
    }
    return a < b;
  });
  std::once_flag once;
  std::call_once(once, what);
  try {
    throw_through(what, 5); /* walks while an exception unwinds the stack */
  } catch (const std::exception &) {
    what();
  }
}
