// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Preloaded after glibc's libc_malloc_debug.so.0, for `leakscope run --with mtrace`: gives each process a
 * log of its own in the folder LEAKSCOPE_MTRACE, and calls mtrace() in programs that do not do so
 * themselves (LEAKSCOPE_MTRACE_START=1). A forked child would write into its parent's log, and what
 * was in its buffer a second time: its log leads nowhere.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// glibc's; weak, so that the library loads where there is none of that name.
extern void mtrace(void) __attribute__((weak));
extern void muntrace(void) __attribute__((weak));

static int log_fd = -1;

static int next_fd(void) {
  int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (fd >= 0)
    close(fd);
  return fd;
}

static void in_child(void) {
  int saved = errno, nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
  if (nowhere >= 0 && nowhere != log_fd) {
    dup3(nowhere, log_fd, O_CLOEXEC);
    close(nowhere);
  }
  errno = saved;
}

__attribute__((constructor)) static void begin(void) {
  const char *folder = getenv("LEAKSCOPE_MTRACE"), *start = getenv("LEAKSCOPE_MTRACE_START");
  char path[512];
  if (folder == NULL ||
      snprintf(path, sizeof path, "%s/%d.mtrace", folder, (int)getpid()) >= (int)sizeof path)
    return;
  setenv("MALLOC_TRACE", path, 1); // also for a program that calls mtrace() later
  if (mtrace == NULL || start == NULL || strcmp(start, "1") != 0)
    return;
  int fd = next_fd(); // nobody else runs yet: it is what mtrace() opens its log as
  mtrace();
  if (fd >= 0 && access(path, F_OK) == 0) {
    log_fd = fd;
    pthread_atfork(NULL, NULL, in_child);
  }
}

__attribute__((destructor)) static void end(void) {
  if (muntrace != NULL)
    muntrace();
}
