/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 *
 * leakscope.h: log what a program allocates, with file and line, where nothing can be preloaded:
 * in static programs, on small machines. `leakscope report leakscope.PID.log` reads the log.
 *
 * Compile every file with it, either by `-include leakscope.h`, or by including it in each after all
 * other headers. There is nothing to link. In C++ exactly one file defines LEAKSCOPE_OPERATORS before
 * including it: then new and delete are logged too; with -DLEAKSCOPE_NEW in all files, also where
 * (`new` is then a macro: classes with an operator new of their own have to be declared before).
 *
 * What can be set, by -D or before including it, alike in all files:
 *
 *   LEAKSCOPE_OFF                nothing is logged, and nothing is defined
 *   LEAKSCOPE_LOG "path"         the log; %p stands for the pid (default "leakscope.%p.log"). The
 *                                environment variable LEAKSCOPE_LOG wins where there is one
 *   LEAKSCOPE_WRITE(text, size)  where the log goes instead, for instance to a serial line
 *   LEAKSCOPE_MICROSECONDS()     the time, as unsigned long; it may begin anywhere
 *   LEAKSCOPE_LOCK(), LEAKSCOPE_UNLOCK()
 *                                around each event (default: a spin lock of gcc and clang)
 *   LEAKSCOPE_BUFFER             bytes that are collected before they are written (default 4096); a
 *                                crash loses so many of the log's end. 0 writes every line
 *
 * C99 and later, C++98 and later, gcc and clang. It sees calls that are written out in files compiled
 * with it: not those of libraries, not `free` given away as a pointer, not what getline() or
 * asprintf() return.
 */
#ifndef LEAKSCOPE_H
#define LEAKSCOPE_H

#ifdef __cplusplus
#include <cstdlib> /* it takes macros away, so it has to come before ours */
#include <cstring>
#include <new>
#endif
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif

#ifndef LEAKSCOPE_OFF

#if defined(__STDC_VERSION__) || (defined(__cplusplus) && __cplusplus >= 201103L)
#define LEAKSCOPE_FUNCTION __func__
#else
#define LEAKSCOPE_FUNCTION "?"
#endif

#ifndef LEAKSCOPE_LOG
#define LEAKSCOPE_LOG "leakscope.%p.log"
#endif
#ifndef LEAKSCOPE_BUFFER
#define LEAKSCOPE_BUFFER 4096
#endif

/* One definition is kept of those that every file has. */
#define LEAKSCOPE_SHARED __attribute__((weak))

#ifdef __cplusplus
extern "C" {
#endif

struct leakscope_state {
  char text[LEAKSCOPE_BUFFER + 1024];
  size_t used;
  FILE *file;
  long pid;
  unsigned long start;
  int began;
  int ended;
  int failed;
  int lock;
};

extern struct leakscope_state leakscope_state;
void *leakscope_malloc(size_t size, const char *file, int line, const char *function);
void *leakscope_calloc(size_t count, size_t size, const char *file, int line, const char *function);
void *leakscope_realloc(void *old, size_t size, const char *file, int line, const char *function);
void *leakscope_aligned(size_t alignment, size_t size, const char *file, int line,
                        const char *function);
char *leakscope_strdup(const char *text, size_t most, const char *file, int line,
                       const char *function);
void leakscope_free(void *block);
void leakscope_event(char mark, size_t block, size_t old, size_t size, const char *kind,
                     const char *file, int line, const char *function);
void leakscope_flush(void);

LEAKSCOPE_SHARED struct leakscope_state leakscope_state;

/* -- the log ---------------------------------------------------------------- */

#ifndef LEAKSCOPE_LOCK
#define LEAKSCOPE_LOCK()                                       \
  while (__sync_lock_test_and_set(&leakscope_state.lock, 1)) { \
  }
#define LEAKSCOPE_UNLOCK() __sync_lock_release(&leakscope_state.lock)
#endif

#ifndef LEAKSCOPE_MICROSECONDS
LEAKSCOPE_SHARED unsigned long leakscope_microseconds(void);
LEAKSCOPE_SHARED unsigned long leakscope_microseconds(void) {
#if defined(CLOCK_MONOTONIC)
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (unsigned long)now.tv_sec * 1000000UL + (unsigned long)now.tv_nsec / 1000UL;
#elif defined(TIME_UTC)
  struct timespec now;
  timespec_get(&now, TIME_UTC);
  return (unsigned long)now.tv_sec * 1000000UL + (unsigned long)now.tv_nsec / 1000UL;
#else
  return (unsigned long)time(NULL) * 1000000UL;
#endif
}
#define LEAKSCOPE_MICROSECONDS() leakscope_microseconds()
#endif

LEAKSCOPE_SHARED long leakscope_pid(void);
LEAKSCOPE_SHARED long leakscope_pid(void) {
#if defined(__unix__) || defined(__APPLE__)
  return (long)getpid();
#else
  return 0;
#endif
}

LEAKSCOPE_SHARED size_t leakscope_digits(char *to, unsigned long value, unsigned base);
LEAKSCOPE_SHARED size_t leakscope_digits(char *to, unsigned long value, unsigned base) {
  char turned[24];
  size_t count = 0, at;
  do {
    turned[count++] = "0123456789abcdef"[value % base];
    value /= base;
  } while (value != 0);
  for (at = 0; at < count; at++)
    to[at] = turned[count - 1 - at];
  return count;
}

/* Opens the log; the lock is held. A forked child, which has its parent's, gets one of its own. */
LEAKSCOPE_SHARED void leakscope_open(long pid);
LEAKSCOPE_SHARED void leakscope_open(long pid) {
#ifndef LEAKSCOPE_WRITE
  char path[1024];
  size_t used = 0;
  const char *from = getenv("LEAKSCOPE_LOG");
  if (from == NULL || *from == '\0')
    from = LEAKSCOPE_LOG;
  for (; *from != '\0' && used + 24 < sizeof path; from++) {
    if (from[0] == '%' && from[1] == 'p') {
      used += leakscope_digits(path + used, (unsigned long)pid, 10);
      from++;
    } else {
      path[used++] = *from;
    }
  }
  path[used] = '\0';
  leakscope_state.file = fopen(path, leakscope_state.began ? "a" : "w");
  leakscope_state.failed = leakscope_state.file == NULL;
  if (leakscope_state.file != NULL)
    setvbuf(leakscope_state.file, NULL, _IONBF, 0);
#endif
  leakscope_state.pid = pid;
  leakscope_state.used = 0;
  leakscope_state.start = LEAKSCOPE_MICROSECONDS();
  memcpy(leakscope_state.text, "leakscope-log 1 pid ", 20);
  leakscope_state.used = 20;
  leakscope_state.used +=
      leakscope_digits(leakscope_state.text + leakscope_state.used, (unsigned long)pid, 10);
  if (leakscope_state.began) {
    memcpy(leakscope_state.text + leakscope_state.used, " forked", 7);
    leakscope_state.used += 7;
  }
  leakscope_state.text[leakscope_state.used++] = '\n';
  if (!leakscope_state.began) {
    leakscope_state.began = 1;
    atexit(leakscope_flush);
  }
}

LEAKSCOPE_SHARED void leakscope_write(void);
LEAKSCOPE_SHARED void leakscope_write(void) {
#ifdef LEAKSCOPE_WRITE
  LEAKSCOPE_WRITE(leakscope_state.text, leakscope_state.used);
#else
  if (leakscope_state.file != NULL && fwrite(leakscope_state.text, 1, leakscope_state.used,
                                             leakscope_state.file) != leakscope_state.used)
    leakscope_state.failed = 1; /* a full disk: the log is cut, and the program goes on */
#endif
  leakscope_state.used = 0;
}

LEAKSCOPE_SHARED void leakscope_text(const char *text, size_t most);
LEAKSCOPE_SHARED void leakscope_text(const char *text, size_t most) {
  leakscope_state.text[leakscope_state.used++] = ' ';
  for (; *text != '\0' && most > 0; text++, most--)
    leakscope_state.text[leakscope_state.used++] = *text == '\n' ? '?' : *text;
}

LEAKSCOPE_SHARED void leakscope_number(unsigned long value, unsigned base);
LEAKSCOPE_SHARED void leakscope_number(unsigned long value, unsigned base) {
  leakscope_state.text[leakscope_state.used++] = ' ';
  leakscope_state.used +=
      leakscope_digits(leakscope_state.text + leakscope_state.used, value, base);
}

/* One line: MARK MICROSECONDS BLOCK [OLD] SIZE KIND LINE FUNCTION FILE. The lock is held. */
LEAKSCOPE_SHARED void leakscope_event(char mark, size_t block, size_t old, size_t size,
                                      const char *kind, const char *file, int line,
                                      const char *function) {
  long pid = leakscope_pid();
  if (!leakscope_state.began || leakscope_state.pid != pid)
    leakscope_open(pid);
  if (leakscope_state.failed)
    return;
  leakscope_state.text[leakscope_state.used++] = mark;
  leakscope_number(LEAKSCOPE_MICROSECONDS() - leakscope_state.start, 10);
  leakscope_number((unsigned long)block, 16);
  if (mark == '>')
    leakscope_number((unsigned long)old, 16);
  if (mark != '-' && mark != '.') {
    leakscope_number((unsigned long)size, 10);
    leakscope_text(kind, 32);
    leakscope_number((unsigned long)line, 10);
    leakscope_text(function, 200);
    leakscope_text(file, 500);
  }
  leakscope_state.text[leakscope_state.used++] = '\n';
  if (leakscope_state.used > LEAKSCOPE_BUFFER || leakscope_state.ended)
    leakscope_write();
}

/* Writes what is collected; called at exit. */
LEAKSCOPE_SHARED void leakscope_flush(void) {
  LEAKSCOPE_LOCK();
  if (leakscope_state.began && leakscope_state.pid == leakscope_pid()) {
    leakscope_event('.', 0, 0, 0, "", "", 0, "");
    leakscope_write();
    leakscope_state.ended = 1; /* what destructors free after this is written at once */
  }
  LEAKSCOPE_UNLOCK();
}

/* -- the functions ------------------------------------------------------------ */

LEAKSCOPE_SHARED void leakscope_log(char mark, size_t block, size_t size, const char *kind,
                                    const char *file, int line, const char *function);
LEAKSCOPE_SHARED void leakscope_log(char mark, size_t block, size_t size, const char *kind,
                                    const char *file, int line, const char *function) {
  LEAKSCOPE_LOCK();
  leakscope_event(block == 0 && mark == '+' ? '!' : mark, block, 0, size, kind, file, line,
                  function);
  LEAKSCOPE_UNLOCK();
}

LEAKSCOPE_SHARED void *leakscope_malloc(size_t size, const char *file, int line,
                                        const char *function) {
  void *block = malloc(size);
  leakscope_log('+', (size_t)block, size, "malloc", file, line, function);
  return block;
}

LEAKSCOPE_SHARED void *leakscope_calloc(size_t count, size_t size, const char *file, int line,
                                        const char *function) {
  void *block = calloc(count, size);
  leakscope_log('+', (size_t)block, count * size, "calloc", file, line, function);
  return block;
}

/* Under the lock as a whole: nobody else logs the old address before it was given back here. */
LEAKSCOPE_SHARED void *leakscope_realloc(void *old, size_t size, const char *file, int line,
                                         const char *function) {
  volatile size_t before = (size_t)old; /* compilers take a look at it later for a use */
  void *block;
  LEAKSCOPE_LOCK();
  block = realloc(old, size);
  if (block == NULL && size != 0)
    leakscope_event('!', 0, 0, size, "realloc", file, line, function);
  else
    leakscope_event('>', (size_t)block, before, size, "realloc", file, line, function);
  LEAKSCOPE_UNLOCK();
  return block;
}

LEAKSCOPE_SHARED void *leakscope_aligned(size_t alignment, size_t size, const char *file, int line,
                                         const char *function) {
  void *block = NULL;
#if defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
  block = aligned_alloc(alignment, size);
#elif defined(__cplusplus) && __cplusplus >= 201703L
  block = aligned_alloc(alignment, size);
#else
  (void)alignment;
#endif
  leakscope_log('+', (size_t)block, size, "memalign", file, line, function);
  return block;
}

LEAKSCOPE_SHARED char *leakscope_strdup(const char *text, size_t most, const char *file, int line,
                                        const char *function) {
  size_t length = 0;
  char *block;
  while (length < most && text[length] != '\0')
    length++;
  block = (char *)leakscope_malloc(length + 1, file, line, function);
  if (block != NULL) {
    memcpy(block, text, length);
    block[length] = '\0';
  }
  return block;
}

/* The line before the block is given back: its next owner may come at once. */
LEAKSCOPE_SHARED void leakscope_free(void *block) {
  if (block != NULL)
    leakscope_log('-', (size_t)block, 0, "", "", 0, "");
  free(block);
}

#ifdef __cplusplus
}
#endif

/* -- C++ ---------------------------------------------------------------------- */

#if defined(__cplusplus) && defined(LEAKSCOPE_OPERATORS)
#if __cplusplus >= 201103L
#define LEAKSCOPE_NOTHROW noexcept
#define LEAKSCOPE_THROWS
#else
#define LEAKSCOPE_NOTHROW throw()
#define LEAKSCOPE_THROWS throw(std::bad_alloc)
#endif

#ifdef LEAKSCOPE_NEW
void leakscope_place(const char *file, int line, const char *function);
__thread const char *leakscope_file, *leakscope_function;
__thread int leakscope_line;
void leakscope_place(const char *file, int line, const char *function) {
  leakscope_file = file;
  leakscope_line = line;
  leakscope_function = function;
}
#endif

static void *leakscope_new(std::size_t size, const char *kind) {
  void *block = malloc(size != 0 ? size : 1);
  const char *file = "?", *function = "?";
  int line = 0;
#ifdef LEAKSCOPE_NEW
  if (leakscope_file != NULL) {
    file = leakscope_file;
    line = leakscope_line;
    function = leakscope_function;
  }
  leakscope_file = NULL; /* what the constructor allocates elsewhere is not of this place */
#endif
  leakscope_log('+', (std::size_t)block, size, kind, file, line, function);
  return block;
}

void *operator new(std::size_t size) LEAKSCOPE_THROWS {
  void *block = leakscope_new(size, "new");
  if (block == NULL)
    throw std::bad_alloc();
  return block;
}

void *operator new[](std::size_t size) LEAKSCOPE_THROWS {
  void *block = leakscope_new(size, "new[]");
  if (block == NULL)
    throw std::bad_alloc();
  return block;
}

void *operator new(std::size_t size, const std::nothrow_t &) LEAKSCOPE_NOTHROW {
  return leakscope_new(size, "new");
}

void *operator new[](std::size_t size, const std::nothrow_t &) LEAKSCOPE_NOTHROW {
  return leakscope_new(size, "new[]");
}

void operator delete(void *block) LEAKSCOPE_NOTHROW { leakscope_free(block); }
void operator delete[](void *block) LEAKSCOPE_NOTHROW { leakscope_free(block); }
#if __cplusplus >= 201402L
void operator delete(void *block, std::size_t) noexcept { leakscope_free(block); }
void operator delete[](void *block, std::size_t) noexcept { leakscope_free(block); }
#endif
#endif

#ifdef __cplusplus
namespace std { /* for std::malloc and its like, whose names become these */
using ::leakscope_aligned;
using ::leakscope_calloc;
using ::leakscope_free;
using ::leakscope_malloc;
using ::leakscope_realloc;
} // namespace std
#endif

#if defined(__cplusplus) && defined(LEAKSCOPE_NEW)
void leakscope_place(const char *file, int line, const char *function);
#ifdef __clang__
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wkeyword-macro"
#endif
#define new (leakscope_place(__FILE__, __LINE__, LEAKSCOPE_FUNCTION), 0) ? 0 : new
#ifdef __clang__
#pragma clang diagnostic pop
#endif
#endif

#define LEAKSCOPE_HERE __FILE__, __LINE__, LEAKSCOPE_FUNCTION
#undef strdup
#undef strndup
#define malloc(size) leakscope_malloc(size, LEAKSCOPE_HERE)
#define calloc(count, size) leakscope_calloc(count, size, LEAKSCOPE_HERE)
#define realloc(old, size) leakscope_realloc(old, size, LEAKSCOPE_HERE)
#define aligned_alloc(alignment, size) leakscope_aligned(alignment, size, LEAKSCOPE_HERE)
#define strdup(text) leakscope_strdup(text, (size_t)-1, LEAKSCOPE_HERE)
#define strndup(text, most) leakscope_strdup(text, most, LEAKSCOPE_HERE)
#define free(block) leakscope_free(block)

#endif /* LEAKSCOPE_OFF */
#endif /* LEAKSCOPE_H */
