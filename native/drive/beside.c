// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Preloaded beside other tools by `leakscope run --with`, into programs of the C library that these are
 * for. It does what the environment asks:
 *
 * LEAKSCOPE_MTRACE=FOLDER   each process has a log of its own of glibc's mtrace there; with
 *                           LEAKSCOPE_MTRACE_START=1 mtrace() is called in programs that do not. A
 *                           forked child would write into its parent's log, and what was in its
 *                           buffer a second time: its log leads nowhere.
 * LEAKSCOPE_MAPS=FOLDER     at its end each process leaves there what was mapped where, for tools
 *                           that write bare addresses.
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

static int log_fd = -1, logs;
static char maps_folder[512];

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

static void copy_maps(void) {
  char path[600], piece[4096];
  snprintf(path, sizeof path, "%s/%d.maps", maps_folder, (int)getpid());
  int from = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
  int to = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  ssize_t got = 0;
  while (from >= 0 && to >= 0 && (got = read(from, piece, sizeof piece)) > 0)
    if (write(to, piece, (size_t)got) != got)
      break;
  if (from >= 0)
    close(from);
  if (to >= 0)
    close(to);
}

static void begin_mtrace(const char *folder) {
  const char *start = getenv("LEAKSCOPE_MTRACE_START");
  char path[600];
  if (snprintf(path, sizeof path, "%s/%d.mtrace", folder, (int)getpid()) >= (int)sizeof path)
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

__attribute__((constructor)) static void begin(void) {
  const char *maps = getenv("LEAKSCOPE_MAPS"), *folder = getenv("LEAKSCOPE_MTRACE");
  if (maps != NULL && strlen(maps) < sizeof maps_folder)
    strcpy(maps_folder, maps);
  logs = folder != NULL; // at the end the environment may be gone: mtrace has libc free it
  if (logs)
    begin_mtrace(folder);
}

__attribute__((destructor)) static void end(void) {
  if (maps_folder[0])
    copy_maps();
  if (logs && muntrace != NULL)
    muntrace();
}
