// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Programs that take this one's place, or that it starts. Where the environment they are given
 * has lost the agent - `env -i`, a start script that preloads an allocator of its own - it is
 * added again. And a list that all processes of a run share says which programs were started and
 * in which of them the agent came up: whoever reads it can name those that were not traced.
 *
 * Called between vfork and exec as well, on the stack and in the memory of the parent: no
 * allocation, and nothing is written but the shared list and what is found once for all.
 */
#include <stdarg.h>

#include "config.h"
#include "exec.h"
#include "private.h"
#include "process.h"
#include "resolve.h"
#include "str.h"
#include "sys.h"

#ifdef __aarch64__
#define OPEN_FLAGS (02 | 0100 | 0100000 | 02000000) /* RDWR|CREAT|NOFOLLOW|CLOEXEC */
#else
#define OPEN_FLAGS (02 | 0100 | 0400000 | 02000000)
#endif
#define MOST_VARIABLES 320u /* of an environment that is mended */
#define MOST_PRELOAD 1024u
#define SAVED_BYTES 2048u
#define MOST_SAVED 16u

/* ---- what the agent was given, for those who come after ---- */

static char saved[SAVED_BYTES];
static size_t saved_bytes;
static char *saved_variables[MOST_SAVED];
static size_t saved_count;
static char own_file[512]; /* as LD_PRELOAD names it */

static size_t length_of(const char *text) {
  size_t n = 0;
  while (text[n])
    n++;
  return n;
}

static bool begins(const char *text, const char *prefix) {
  while (*prefix)
    if (*text++ != *prefix++)
      return false;
  return true;
}

static bool separates(char c) { return c == ':' || c == ' '; }

/* The entry of LD_PRELOAD that is ours: at `*ret_at`, so many bytes; 0: none. */
static size_t own_entry(const char *value, const char **ret_at) {
  while (*value) {
    const char *entry = value, *base = value;
    for (; *value && !separates(*value); value++)
      if (*value == '/')
        base = value + 1;
    if (begins(base, "libleakscope-agent")) {
      *ret_at = entry;
      return (size_t)(value - entry);
    }
    if (*value)
      value++;
  }
  return 0;
}

void ls_exec_save(const char *variable) {
  if (begins(variable, "LD_PRELOAD=")) {
    const char *entry;
    size_t bytes = own_entry(variable + 11, &entry);
    if (bytes && bytes < sizeof own_file)
      memcpy(own_file, entry, bytes);
    return;
  }
  size_t bytes = length_of(variable) + 1;
  if (!begins(variable, "LEAKSCOPE_") || saved_count == MOST_SAVED ||
      bytes > sizeof saved - saved_bytes)
    return;
  saved_variables[saved_count++] = memcpy(saved + saved_bytes, variable, bytes);
  saved_bytes += bytes;
}

/* ---- the list of programs ---- */

static struct lsr_starts *list; /* inherited by fork, shared by all */

static char program[sizeof((struct lsr_start *)0)->path];

const char *ls_exec_program(void) { return program; }

void ls_exec_begin(void) {
  ls_readlink("/proc/self/exe", program, sizeof program - 1);
  char path[sizeof ls_config.dir + 32];
  size_t n = length_of(ls_config.dir);
  memcpy(path, ls_config.dir, n);
  memcpy(path + n, "/starts.", 8);
  n += 8;
  char digits[12];
  size_t count = 0;
  uint32_t user = ls_geteuid();
  do
    digits[count++] = (char)('0' + user % 10);
  while (user /= 10);
  while (count)
    path[n++] = digits[--count];
  path[n] = 0;
  int fd = ls_open(path, OPEN_FLAGS, 0600);
  if (fd < 0)
    return;
  struct ls_stat status;
  void *memory = NULL;
  if (ls_fstat(fd, &status) == 0 && status.uid == ls_geteuid() &&
      (status.mode & 0170000) == 0100000 &&
      (status.size == sizeof *list || ls_ftruncate(fd, sizeof *list) == 0) &&
      ls_fallocate(fd, 0, 0, sizeof *list) == 0)
    memory = ls_mmap(NULL, sizeof *list, 3, 1 /* MAP_SHARED */, fd, 0);
  ls_close(fd);
  if (!memory || ((intptr_t)memory < 0 && (intptr_t)memory >= -4095))
    return;
  ls_private_note(memory, sizeof *list);
  list = memory;
  ls_exec_note(LSR_START_ARRIVED, (uint32_t)ls_getpid(), NULL);
}

void ls_exec_end(void) { __atomic_store_n(&list, NULL, __ATOMIC_RELEASE); }

struct lsr_start *ls_exec_note(enum lsr_start_kind kind, uint32_t pid, const char *path) {
  struct lsr_starts *shared = __atomic_load_n(&list, __ATOMIC_ACQUIRE);
  if (!shared || (int32_t)pid <= 0 /* may not be asked */)
    return NULL;
  uint64_t number = __atomic_fetch_add(&shared->count, 1, __ATOMIC_RELAXED);
  struct lsr_start *start = &shared->starts[number % LSR_STARTS];
  __atomic_store_n(&start->kind, 0, __ATOMIC_RELEASE);
  start->number = number + 1;
  start->pid = pid;
  size_t n = 0;
  for (; path && *path && n + 1 < sizeof start->path; path++)
    start->path[n++] = *path;
  start->path[n] = 0;
  __atomic_store_n(&start->kind, (uint32_t)kind | (ls_is_sealed() ? LSR_START_FILTERED : 0),
                   __ATOMIC_RELEASE);
  return start;
}

static void forget(struct lsr_start *start) {
  if (start && list)
    __atomic_store_n(&start->kind, LSR_START_FAILED, __ATOMIC_RELEASE);
}

/* ---- the environment of those who are started ---- */

struct mended {
  char *variables[MOST_VARIABLES + MOST_SAVED + 2];
  char preload[MOST_PRELOAD];
};

enum lack { LACKS_NOTHING, LACKS_AGENT, HAS_NO_ROOM };

static enum lack look(char *const *environment) {
  if (!own_file[0] || !saved_count || !ls_config.children || ls_config.from_file)
    return LACKS_NOTHING;
  bool agent = false, directory = false;
  size_t count = 0;
  for (; environment && environment[count]; count++) {
    const char *entry;
    if (begins(environment[count], "LD_PRELOAD="))
      agent = own_entry(environment[count] + 11, &entry) > 0; /* the last one counts */
    directory |= begins(environment[count], "LEAKSCOPE_DIR=");
  }
  if (agent && directory)
    return LACKS_NOTHING;
  return count > MOST_VARIABLES ? HAS_NO_ROOM : LACKS_AGENT;
}

/* `out` holds what the result points to, and has to live as long. */
static char *const *mend(char *const *environment, struct mended *out) {
  size_t count = 0;
  char *preload = NULL;
  bool directory = false;
  for (; environment && environment[count]; count++)
    directory |= begins(environment[count], "LEAKSCOPE_DIR=");
  size_t kept = 0;
  for (size_t i = 0; i < count; i++) {
    if (begins(environment[i], "LD_PRELOAD="))
      preload = environment[i] + 11;
    else if (directory || !begins(environment[i], "LEAKSCOPE_"))
      out->variables[kept++] = environment[i];
  }
  size_t own = length_of(own_file), others = preload ? length_of(preload) : 0;
  if (11 + own + 1 + others + 1 > sizeof out->preload)
    return environment;
  const char *entry;
  if (preload && own_entry(preload, &entry)) {
    out->variables[kept++] = preload - 11;
  } else {
    char *at = out->preload;
    at = (char *)memcpy(at, "LD_PRELOAD=", 11) + 11;
    at = (char *)memcpy(at, own_file, own) + own;
    if (others) {
      *at++ = ':';
      at = (char *)memcpy(at, preload, others) + others;
    }
    *at = 0;
    out->variables[kept++] = out->preload;
  }
  for (size_t i = 0; !directory && i < saved_count; i++)
    out->variables[kept++] = saved_variables[i];
  out->variables[kept] = NULL;
  return out->variables;
}

/* ---- the hooks ---- */

typedef char *const *strings;

#define REAL(type, name)                                                        \
  static void *real_cache_##name;                                               \
  __typeof__(type) real = (__typeof__(type))ls_next_symbol_cached(&real_cache_##name, #name);    \
  if (!real)                                                                    \
  return -1

/* The loader finds the one that the program uses: often a copy in the program itself. */
extern char **environ __attribute__((weak, visibility("default")));

static strings current(void) { return &environ ? (strings)environ : NULL; }

/* Call `call` with `name` for the environment to give; the frame of the mended one is only
 * there when it is needed. */
#define WITH(environment, result, call)                       \
  do {                                                        \
    if (LS_LIKELY(look(environment) != LACKS_AGENT)) {        \
      strings given = environment;                            \
      result = call;                                          \
    } else {                                                  \
      struct mended mended;                                   \
      strings given = mend(environment, &mended);             \
      result = call;                                          \
    }                                                         \
  } while (0)

/* The process between vfork and exec has its parent's memory, and only the kernel knows its number.
 * Else nobody is asked: there may be a filter by now that was not seen. */
static bool shares_memory; /* some child may have, at some time */

static __attribute__((used)) void *before_vfork(void) {
  static void *cache;
  shares_memory = true;
  return ls_next_symbol_cached(&cache, "vfork");
}

LS_EXPORT int vfork(void); /* jumps: it returns twice */
#ifdef __x86_64__
__asm__(".text\n.balign 16\n.globl vfork\n.type vfork, @function\n"
        "vfork:\n.cfi_startproc\nendbr64\nsub $8, %rsp\n.cfi_adjust_cfa_offset 8\n"
        "call before_vfork\nadd $8, %rsp\n.cfi_adjust_cfa_offset -8\njmp *%rax\n.cfi_endproc\n"
        ".size vfork, . - vfork\n");
#else
__asm__(".text\n.balign 16\n.globl vfork\n.type vfork, %function\n"
        "vfork:\n.cfi_startproc\nhint #34\nstp x29, x30, [sp, #-16]!\n.cfi_def_cfa_offset 16\n"
        ".cfi_offset 29, -16\n.cfi_offset 30, -8\nbl before_vfork\nmov x16, x0\n"
        "ldp x29, x30, [sp], #16\n.cfi_restore 29\n.cfi_restore 30\n.cfi_def_cfa_offset 0\nbr x16\n"
        ".cfi_endproc\n.size vfork, . - vfork\n");
#endif

/* clone(): the same for a child that shares memory and is no thread. */
static __attribute__((used)) void *before_clone(int flags) {
  static void *cache;
  if (flags & 0x100 /* VM */ && !(flags & 0x10000 /* THREAD */))
    shares_memory = true;
  return ls_next_symbol_cached(&cache, "clone");
}

LS_EXPORT int clone(int (*function)(void *), void *stack, int flags, void *argument, ...);
#ifdef __x86_64__
__asm__(".text\n.balign 16\n.globl clone\n.type clone, @function\n"
        "clone:\n.cfi_startproc\nendbr64\nsub $56, %rsp\n.cfi_adjust_cfa_offset 56\n"
        "mov %rdi, (%rsp)\nmov %rsi, 8(%rsp)\nmov %rdx, 16(%rsp)\nmov %rcx, 24(%rsp)\n"
        "mov %r8, 32(%rsp)\nmov %r9, 40(%rsp)\nmov %edx, %edi\ncall before_clone\n"
        "mov (%rsp), %rdi\nmov 8(%rsp), %rsi\nmov 16(%rsp), %rdx\nmov 24(%rsp), %rcx\n"
        "mov 32(%rsp), %r8\nmov 40(%rsp), %r9\nadd $56, %rsp\n.cfi_adjust_cfa_offset -56\n"
        "mov %rax, %r11\nxor %eax, %eax\njmp *%r11\n.cfi_endproc\n.size clone, . - clone\n");
#else
__asm__(".text\n.balign 16\n.globl clone\n.type clone, %function\n"
        "clone:\n.cfi_startproc\nhint #34\nstp x29, x30, [sp, #-80]!\n.cfi_def_cfa_offset 80\n"
        ".cfi_offset 29, -80\n.cfi_offset 30, -72\nstp x0, x1, [sp, #16]\nstp x2, x3, [sp, #32]\n"
        "stp x4, x5, [sp, #48]\nstp x6, x7, [sp, #64]\nmov w0, w2\nbl before_clone\nmov x16, x0\n"
        "ldp x0, x1, [sp, #16]\nldp x2, x3, [sp, #32]\nldp x4, x5, [sp, #48]\n"
        "ldp x6, x7, [sp, #64]\nldp x29, x30, [sp], #80\n.cfi_restore 29\n.cfi_restore 30\n"
        ".cfi_def_cfa_offset 0\nbr x16\n.cfi_endproc\n.size clone, . - clone\n");
#endif

void ls_exec_memory_is_shared(void) { shares_memory = true; }

static uint32_t own_number(void) {
  uint32_t known = shares_memory ? 0 : ls_process_number();
  return known ? known : (uint32_t)ls_getpid();
}

/* An exec returns only when it failed. */
#define EXEC(path, environment, call)                                                           \
  do {                                                                                          \
    struct lsr_start *start = ls_exec_note(LSR_START_EXEC, own_number(), path);                  \
    int result;                                                                                 \
    WITH(environment, result, call);                                                            \
    forget(start);                                                                              \
    return result;                                                                              \
  } while (0)

LS_EXPORT int execve(const char *path, strings arguments, strings environment);
int execve(const char *path, strings arguments, strings environment) {
  REAL(int (*)(const char *, strings, strings), execve);
  EXEC(path, environment, real(path, arguments, given));
}

LS_EXPORT int execvpe(const char *file, strings arguments, strings environment);
int execvpe(const char *file, strings arguments, strings environment) {
  REAL(int (*)(const char *, strings, strings), execvpe);
  EXEC(file, environment, real(file, arguments, given));
}

LS_EXPORT int execv(const char *path, strings arguments);
int execv(const char *path, strings arguments) { return execve(path, arguments, current()); }

LS_EXPORT int execvp(const char *file, strings arguments);
int execvp(const char *file, strings arguments) { return execvpe(file, arguments, current()); }

LS_EXPORT int fexecve(int fd, strings arguments, strings environment);
int fexecve(int fd, strings arguments, strings environment) {
  REAL(int (*)(int, strings, strings), fexecve);
  EXEC("a program given by its descriptor", environment, real(fd, arguments, given));
}

LS_EXPORT int execveat(int folder, const char *path, strings arguments, strings environment,
                       int flags);
int execveat(int folder, const char *path, strings arguments, strings environment, int flags) {
  REAL(int (*)(int, const char *, strings, strings, int), execveat);
  EXEC(path && *path ? path : "a program given by its descriptor", environment,
       real(folder, path, arguments, given, flags));
}

/* The arguments of execl and its like as an array on the stack, as libc does it. */
#define GATHER(first, from)                                                      \
  va_list list_of_arguments;                                                     \
  size_t count = 1;                                                              \
  va_start(list_of_arguments, first);                                            \
  while (va_arg(list_of_arguments, char *))                                      \
    count++;                                                                     \
  va_end(list_of_arguments);                                                     \
  char **arguments = __builtin_alloca((count + 1) * sizeof(char *));             \
  arguments[0] = (char *)(uintptr_t)first;                                       \
  va_start(list_of_arguments, first);                                            \
  for (size_t i = 1; i <= count; i++)                                            \
    arguments[i] = va_arg(list_of_arguments, char *);                            \
  from;                                                                          \
  va_end(list_of_arguments)

LS_EXPORT int execl(const char *path, const char *first, ...);
int execl(const char *path, const char *first, ...) {
  if (!first) /* no arguments at all */
    return execv(path, (strings)&first);
  GATHER(first, (void)0);
  return execve(path, arguments, current());
}

LS_EXPORT int execlp(const char *file, const char *first, ...);
int execlp(const char *file, const char *first, ...) {
  if (!first)
    return execvp(file, (strings)&first);
  GATHER(first, (void)0);
  return execvpe(file, arguments, current());
}

LS_EXPORT int execle(const char *path, const char *first, ...);
int execle(const char *path, const char *first, ...) {
  GATHER(first, strings environment = va_arg(list_of_arguments, strings));
  return execve(path, arguments, environment);
}

typedef int (*spawn_function)(int *, const char *, const void *, const void *, strings, strings);

/* Started beside us: its number is known when it was started, which may be after it came up. */
#define SPAWN(name)                                                                          \
  LS_EXPORT int name(int *pid, const char *path, const void *actions, const void *attributes, \
                     strings arguments, strings environment);                                \
  int name(int *pid, const char *path, const void *actions, const void *attributes,          \
           strings arguments, strings environment) {                                         \
    static void *cache;                                                                      \
    spawn_function real = (spawn_function)ls_next_symbol_cached(&cache, #name);                               \
    if (!real)                                                                               \
      return 38 /* ENOSYS */;                                                                \
    int result, own;                                                                         \
    int *child = pid ? pid : &own;                                                           \
    WITH(environment, result, real(child, path, actions, attributes, arguments, given));     \
    if (result == 0)                                                                         \
      ls_exec_note(LSR_START_SPAWN, (uint32_t)*child, path);                                 \
    return result;                                                                           \
  }
SPAWN(posix_spawn)
SPAWN(posix_spawnp)
