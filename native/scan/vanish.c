// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * A file that is cut off while it is mapped: what is gone reads as zeros, instead of ending us by
 * SIGBUS. One mapping at a time.
 */
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "scan.h"

static struct {
  uintptr_t start, end, page;
  _Atomic uintptr_t gone; /* from here on */
  struct sigaction before;
} watched;

static void on_bus(int signal_number, siginfo_t *info, void *context) {
  (void)context;
  uintptr_t at = (uintptr_t)info->si_addr & ~(watched.page - 1);
  if (at >= watched.start && at < watched.end) {
    /* What lies behind it in the file is gone as well. */
    void *zeros = mmap((void *)at, watched.end - at, PROT_READ,
                       MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (zeros != MAP_FAILED) {
      if (at < watched.gone) watched.gone = at;
      return;
    }
  }
  sigaction(signal_number, &watched.before, NULL); /* the access is tried again, and ends us */
}

/** Watch over the mapping from `start` to `end`. Returns 0, or -1 when that cannot be done. */
EXPORT int lss_watch(uintptr_t start, uintptr_t end);
int lss_watch(uintptr_t start, uintptr_t end) {
  watched.page = (uintptr_t)sysconf(_SC_PAGESIZE);
  watched.start = start;
  watched.end = (end + watched.page - 1) & ~(watched.page - 1);
  watched.gone = UINTPTR_MAX;
  struct sigaction action = {.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO | SA_NODEFER};
  sigemptyset(&action.sa_mask);
  return sigaction(SIGBUS, &action, &watched.before);
}

/** Whether a part of the mapping is gone. */
EXPORT bool lss_vanished(void);
bool lss_vanished(void) { return watched.gone != UINTPTR_MAX; }

/** Stop watching. */
EXPORT void lss_unwatch(void);
void lss_unwatch(void) {
  watched.start = watched.end = 0;
  sigaction(SIGBUS, &watched.before, NULL);
}
