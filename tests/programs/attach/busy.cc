// SPDX-License-Identifier: Apache-2.0
// Threads that throw and catch, threads that live for a moment, dlopen and dlclose in a loop, signals
// that allocate nothing and come all the time: everything that an attach may meet at a bad moment.
// Prints WRONG and ends when something is not as it should be.
#include <dlfcn.h>
#include <signal.h>
#include <sys/time.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

static std::atomic<long> caught, ticks;

static void wrong(const char *what) {
  printf("WRONG %s\n", what);
  fflush(stdout);
  _exit(9);
}

__attribute__((noinline)) static void thrower(int i) {
  std::string text(100 + i % 50, 'x');
  if (i % 3 == 0)
    throw std::runtime_error(text);
}

static void work() {
  for (int i = 0;; i++) {
    try {
      thrower(i);
      if (i % 3 == 0)
        wrong("nothing was thrown");
    } catch (const std::exception &error) {
      if (std::string(error.what()).size() != size_t(100 + i % 50))
        wrong("another exception");
      caught++;
    }
    auto *map = new std::map<int, std::string>;
    for (int k = 0; k < 10; k++)
      (*map)[k] = std::string(k * 7, char('a' + k));
    for (int k = 0; k < 10; k++)
      if ((*map)[k] != std::string(k * 7, char('a' + k)))
        wrong("a map");
    delete map;
    int *numbers = new int[10];
    numbers[9] = i;
    if (numbers[9] != i)
      wrong("an array");
    delete[] numbers;
    if (i % 50 == 0)
      usleep(100);
  }
}

int main() {
  struct sigaction action = {};
  action.sa_handler = [](int) { ticks++; };
  action.sa_flags = SA_RESTART;
  sigaction(SIGALRM, &action, nullptr);
  itimerval every = {{0, 3000}, {0, 3000}};
  setitimer(ITIMER_REAL, &every, nullptr);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; i++)
    threads.emplace_back(work);
  for (;;) {
    std::string out;
    std::thread([&out] { out = std::string(1000, 'y'); }).join();
    if (out.size() != 1000)
      wrong("a thread");
    if (void *library = dlopen("libz.so.1", RTLD_NOW)) {
      auto bound = reinterpret_cast<unsigned long (*)(unsigned long)>(dlsym(library, "compressBound"));
      if (!bound || bound(1000) < 1000)
        wrong("a library");
      dlclose(library);
    }
    usleep(100);
  }
}
