// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * The agent's unwind rules against the compiler's own unwinder.
 *
 * Without arguments: walks this program's stack from many kinds of frames, in signal
 * handlers and in threads, and compares every return address with _Unwind_Backtrace;
 * then checks the module table and the symbol look-up against libc's answers. Prints one
 * line a test and exits 1 when any failed.
 *
 * `test_rules --rules FILE` maps the ELF file FILE as a loader would, reads ELF virtual
 * addresses (hexadecimal, one a line; a leading "=" asks for the exact address instead of
 * a return address) and prints for each "address kind cfa_offset ra_offset fp_offset".
 * check_rules.py compares that with readelf.
 */
#define _GNU_SOURCE
#include <alloca.h>
#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <search.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <unwind.h>

#include "process.h"
#include "modules.h"
#include "resolve.h"
#include "rules.h"
#include "seal.h"
#include "sys.h"

/* The agent's own also notes the range in the recording, and there is none here. */
void *ls_private(size_t bytes) {
  void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                      -1, 0);
  return memory == MAP_FAILED ? NULL : memory;
}

/* ---- what the rest of the agent would provide ---- */

static unsigned recorded_modules, gone_modules;
static char recorded_path[LSR_MAX_MODULES + 1][256];
static struct ls_module_info recorded[LSR_MAX_MODULES + 1];
static uint8_t recorded_build_id[LSR_MAX_MODULES + 1][32];

uint16_t ls_recording_add_module(const struct ls_module_info *info) {
  if (recorded_modules == LSR_MAX_MODULES)
    return 0;
  unsigned index = ++recorded_modules;
  recorded[index] = *info;
  size_t n = info->path_bytes < 255 ? info->path_bytes : 255;
  memcpy(recorded_path[index], info->path, n);
  recorded_path[index][n] = 0;
  memcpy(recorded_build_id[index], info->build_id, info->build_id_bytes);
  return (uint16_t)index;
}

void ls_recording_module_gone(uint16_t index_plus_1) {
  (void)index_plus_1;
  gone_modules++;
}

void ls_count_drop_anywhere(enum lsr_drop reason) { (void)reason; }

bool ls_thread_is_alone(void) { return true; }
bool ls_seal_begin(void) { return true; }
void ls_real_resolve(void) {}

__thread struct ls_local ls_tls;

void ls_lock_wake(struct ls_lock *lock) { lock->awaited = 0; }

void ls_lock_contended(struct ls_lock *lock) {
  while (!ls_trylock(lock))
    ls_sched_yield();
}

/* ---- a walk by the rules, and one by libgcc ---- */

#define MAX_FRAMES 512

struct trace {
  unsigned count;
  uintptr_t pc[MAX_FRAMES];
  const char *stopped; /* why the walk ended */
};

static bool follow_frame_pointers; /* musl's libc has no unwind information */

static inline uintptr_t word_at(uintptr_t address) { return *(const uintptr_t *)address; }

static __attribute__((noinline)) void walk(struct trace *trace, uintptr_t pc, uintptr_t sp,
                                           uintptr_t fp, uintptr_t link) {
  bool exact = true;
  trace->count = 0;
  trace->stopped = "too deep";
  while (trace->count < MAX_FRAMES) {
    trace->pc[trace->count++] = pc;
    uint64_t rule = ls_rule_lookup(pc, exact);
    enum ls_rule_kind kind = ls_rule_kind(rule);
    uintptr_t cfa = 0;
    switch (kind) {
    case LS_RULE_SP:
    case LS_RULE_LINK:
      cfa = sp + (uintptr_t)ls_rule_cfa_offset(rule);
      break;
    case LS_RULE_FP:
      cfa = fp + (uintptr_t)ls_rule_cfa_offset(rule);
      break;
    case LS_RULE_FP_DEREF:
      cfa = word_at(fp + (uintptr_t)ls_rule_cfa_offset(rule));
      break;
    case LS_RULE_SIGNAL:
      pc = word_at(sp + LS_SIGNAL_PC_OFFSET);
      fp = word_at(sp + LS_SIGNAL_FP_OFFSET);
#ifdef LS_SIGNAL_LINK_OFFSET
      link = word_at(sp + LS_SIGNAL_LINK_OFFSET);
#endif
      sp = word_at(sp + LS_SIGNAL_SP_OFFSET);
      exact = true;
      continue;
    case LS_RULE_END:
      trace->stopped = "end";
      return;
    case LS_RULE_NONE:
      if (follow_frame_pointers && fp >= sp && fp < sp + (1 << 20)) {
        pc = word_at(fp + 8);
        sp = fp + 16;
        fp = word_at(fp);
        exact = false;
        continue;
      }
      trace->stopped = "no rule";
      return;
    }
    if (kind == LS_RULE_LINK) {
      pc = link;
      if (!exact) {
        trace->stopped = "return address in a register";
        return;
      }
    } else {
      pc = word_at(cfa + (uintptr_t)ls_rule_ra_offset(rule));
    }
    if (ls_rule_saves_fp(rule))
      fp = word_at((kind == LS_RULE_FP_DEREF ? fp : cfa) + (uintptr_t)ls_rule_fp_offset(rule));
    pc = (uintptr_t)ls_strip_pac((void *)pc);
    sp = cfa;
    exact = false;
    if (!pc) {
      trace->stopped = "zero";
      return;
    }
  }
}

static _Unwind_Reason_Code take_frame(struct _Unwind_Context *context, void *data) {
  struct trace *trace = data;
  uintptr_t pc = _Unwind_GetIP(context);
  if (!pc || trace->count == MAX_FRAMES)
    return _URC_END_OF_STACK;
  trace->pc[trace->count++] = pc;
  return _URC_NO_REASON;
}

static unsigned frames_compared, frames_equal, tests, failures;
static const char *running;

static void verdict(bool ok, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  char text[300];
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  tests++;
  failures += !ok;
  printf("%-4s %-28s %s\n", ok ? "ok" : "FAIL", running, text);
}

static void describe(uintptr_t pc, const char *who) {
  Dl_info info;
  if (dladdr((void *)pc, &info) && info.dli_fname)
    printf("       %s %#lx %s+%#lx (%s)\n", who, (unsigned long)pc, info.dli_fname,
           (unsigned long)(pc - (uintptr_t)info.dli_fbase), info.dli_sname ? info.dli_sname : "?");
  else
    printf("       %s %#lx\n", who, (unsigned long)pc);
}

static bool quiet;
static int expect_at_least;
static bool may_go_further; /* libgcc gives up in aarch64's procedure linkage table */
static unsigned went_further;

/* Walk from here both ways and compare from our caller outwards. */
__attribute__((noinline)) void compare_here(void) {
  static __thread struct trace ours, theirs;
  uintptr_t pc, sp, fp, link = 0;
#ifdef __x86_64__
  __asm__ volatile("lea 0(%%rip), %0\n\tmov %%rsp, %1\n\tmov %%rbp, %2"
                   : "=&r"(pc), "=&r"(sp), "=&r"(fp));
#else
  __asm__ volatile("adr %0, .\n\tmov %1, sp\n\tmov %2, x29\n\tmov %3, x30"
                   : "=&r"(pc), "=&r"(sp), "=&r"(fp), "=&r"(link));
#endif
  walk(&ours, pc, sp, fp, link);
  theirs.count = 0;
  _Unwind_Backtrace(take_frame, &theirs);
  if (may_go_further && theirs.count < ours.count && !strcmp(ours.stopped, "end")) {
    ours.count = theirs.count;
    went_further++;
  }
  unsigned equal = 0, longer = ours.count > theirs.count ? ours.count : theirs.count;
  for (unsigned i = 1; i < longer; i++)
    equal += i < ours.count && i < theirs.count && ours.pc[i] == theirs.pc[i];
  frames_compared += longer - 1;
  frames_equal += equal;
  bool ok = equal == longer - 1 && (int)longer > expect_at_least && !strcmp(ours.stopped, "end");
  if (!quiet || !ok)
    verdict(ok, "%u of %u frames equal, walk ended: %s", equal, longer - 1, ours.stopped);
  if (!ok)
    for (unsigned i = 1; i < longer; i++)
      if (i >= ours.count || i >= theirs.count || ours.pc[i] != theirs.pc[i]) {
        if (i < ours.count)
          describe(ours.pc[i], "ours  ");
        if (i < theirs.count)
          describe(theirs.pc[i], "theirs");
      }
}

/* ---- frames of many kinds ---- */

typedef void (*callback)(void);
static volatile int zero;
static void *volatile sink;

#define NOINLINE __attribute__((noinline, noclone, noipa))

NOINLINE static void through_small(int depth, callback last) {
  if (depth == 0)
    last();
  else
    through_small(depth - 1, last);
  zero++;
}

NOINLINE static void through_large(int depth, callback last) {
  char room[40000];
  sink = room;
  if (depth == 0)
    last();
  else
    through_large(depth - 1, last);
  zero++;
}

NOINLINE static void through_alloca(int depth, callback last) {
  sink = alloca((size_t)(depth * 100 + 17));
  if (depth == 0)
    last();
  else
    through_alloca(depth - 1, last);
  zero++;
}

NOINLINE static void through_realigned(int depth, callback last) {
  _Alignas(128) char room[200];
  sink = room;
  if (depth == 0)
    last();
  else
    through_realigned(depth - 1, last);
  zero++;
}

NOINLINE static void through_realigned_alloca(int depth, callback last, long a, long b, long c,
                                              long d, long e, long f) {
  _Alignas(64) char room[200];
  sink = room;
  sink = alloca((size_t)(depth * 50 + 3));
  if (depth == 0)
    last();
  else
    through_realigned_alloca(depth - 1, last, a + 1, b, c, d, e, f + a);
  zero += (int)(a + f);
}

NOINLINE __attribute__((optimize("O0"))) static void through_unoptimised(int depth, callback last) {
  int local = depth;
  if (local == 0)
    last();
  else
    through_unoptimised(local - 1, last);
}

NOINLINE __attribute__((optimize("no-omit-frame-pointer"))) static void
through_frame_pointer(int depth, callback last) {
  if (depth == 0)
    last();
  else
    through_frame_pointer(depth - 1, last);
  zero++;
}

NOINLINE static long through_many_registers(int depth, callback last, long a, long b, long c,
                                            long d) {
  long e = a * b, f = b * c, g = c * d, h = d * a;
  if (depth == 0)
    last();
  else
    e += through_many_registers(depth - 1, last, b, c, d, a);
  return a + b + c + d + e + f + g + h;
}

NOINLINE static void through_noreturn_tail(callback last) {
  last();
  if (zero == -12345)
    abort();
}

NOINLINE static void mixed(int depth, callback last);
static callback mixed_last;
static int mixed_depth;
NOINLINE static void mixed_next(void) { mixed(mixed_depth, mixed_last); }

/* Every kind of frame on top of every other. */
NOINLINE static void mixed(int depth, callback last) {
  if (depth == 0) {
    last();
    zero++;
    return;
  }
  mixed_depth = depth - 1;
  mixed_last = last;
  switch (rand() % 7) {
  case 0:
    through_small(rand() % 3, mixed_next);
    break;
  case 1:
    through_alloca(rand() % 3, mixed_next);
    break;
  case 2:
    through_realigned(rand() % 3, mixed_next);
    break;
  case 3:
    through_realigned_alloca(rand() % 2, mixed_next, 1, 2, 3, 4, 5, 6);
    break;
  case 4:
    through_unoptimised(rand() % 3, mixed_next);
    break;
  case 5:
    through_frame_pointer(rand() % 3, mixed_next);
    break;
  default:
    through_many_registers(rand() % 3, mixed_next, 1, 2, 3, 4);
  }
  zero++;
}

/* ---- through libc ---- */

static bool compared_once;
static int compare_items(const void *a, const void *b) {
  if (!compared_once) {
    compared_once = true;
    compare_here();
  }
  return *(const int *)a - *(const int *)b;
}
static void in_qsort(void) {
  int items[] = {3, 1, 2, 9, 4};
  compared_once = false;
  qsort(items, 5, sizeof *items, compare_items);
}
static void in_bsearch(void) {
  int items[] = {1, 2, 3}, key = 2;
  compared_once = false;
  sink = bsearch(&key, items, 3, sizeof *items, compare_items);
}
static void visit(const void *node, VISIT which, int depth) {
  (void)node, (void)depth;
  if (which == leaf)
    compare_here();
}
static void in_twalk(void) {
  static int key = 5;
  void *root = NULL;
  tsearch(&key, &root, compare_items);
  twalk(root, visit);
}
static int each_object(struct dl_phdr_info *info, size_t bytes, void *data) {
  (void)info, (void)bytes, (void)data;
  compare_here();
  return 1;
}
static void in_dl_iterate_phdr(void) { dl_iterate_phdr(each_object, NULL); }
static pthread_once_t once = PTHREAD_ONCE_INIT;
static void in_once(void) { pthread_once(&once, compare_here); }
static ssize_t cookie_write(void *cookie, const char *text, size_t bytes) {
  (void)cookie, (void)text;
  compare_here();
  return (ssize_t)bytes;
}
static void in_stdio(void) {
  FILE *file = fopencookie(NULL, "w", (cookie_io_functions_t){.write = cookie_write});
  setvbuf(file, NULL, _IONBF, 0);
  fprintf(file, "%d %s\n", 12345, "hello");
  fclose(file);
}

/* ---- signals ---- */

static void on_signal(int number) {
  (void)number;
  compare_here();
}
static void raise_signal(void) {
  raise(SIGUSR1);
  zero++;
}
static void arm(int flags) {
  struct sigaction action = {.sa_handler = on_signal, .sa_flags = flags};
  sigaction(SIGUSR1, &action, NULL);
  sigaction(SIGSEGV, &action, NULL);
  sigaction(SIGALRM, &action, NULL);
}

static volatile int ticks;
static void on_tick(int number) {
  (void)number;
  compare_here();
  ticks++;
}
NOINLINE static long leaf_work(long n) {
  long sum = 0;
  for (long i = 0; i < n; i++)
    sum += i ^ (sum >> 3);
  return sum;
}
NOINLINE static long branchy(int depth, long n) {
  long sum = leaf_work(n % 17);
  if (depth > 0)
    sum += branchy(depth - 1, n + 1) + leaf_work(3);
  char text[64];
  snprintf(text, sizeof text, "%ld %s", sum, "x");
  return sum + (long)strlen(text);
}

/* Interrupt arbitrary instructions, prologues and epilogues included. */
static void asynchronous(void) {
  struct sigaction action = {.sa_handler = on_tick, .sa_flags = SA_RESTART};
  sigaction(SIGPROF, &action, NULL);
  timer_t timer;
  struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGPROF};
  if (timer_create(CLOCK_MONOTONIC, &event, &timer)) {
    verdict(false, "no timer");
    return;
  }
  struct itimerspec every = {{0, 1000000}, {0, 1000000}};
  quiet = true;
#ifdef __aarch64__
  may_go_further = true;
#endif
  unsigned before = frames_compared, equal_before = frames_equal, failures_before = failures;
  timer_settime(timer, 0, &every, NULL);
  for (long n = 0; ticks < 300; n++)
    sink = (void *)branchy(12, n);
  timer_delete(timer);
  quiet = false;
  may_go_further = false;
  verdict(failures == failures_before, "%d signals, %u of %u frames equal, %u further than libgcc",
          ticks, frames_equal - equal_before, frames_compared - before, went_further);
}

/* ---- threads, constructors ---- */

static void *in_thread(void *argument) {
  ((callback)argument)();
  return NULL;
}
static void run_in_thread(callback what) {
  pthread_t thread;
  pthread_create(&thread, NULL, in_thread, (void *)what);
  pthread_join(thread, NULL);
}
#ifdef WITH_CXX
void run_in_cxx(callback what); /* test_rules_cxx.cc */
#endif

static void before_main_body(void) {
  running = "before main";
  quiet = true; /* standard output may be for check_rules.py */
  compare_here();
  quiet = false;
}
__attribute__((constructor)) static void before_main(void) {
  ls_rules_init();
  ls_modules_rescan();
  through_small(2, before_main_body);
}

/* ---- modules ---- */

static int check_object(struct dl_phdr_info *info, size_t bytes, void *data) {
  (void)bytes;
  unsigned *counts = data;
  uintptr_t text = 0;
  for (int i = 0; i < info->dlpi_phnum; i++)
    if (info->dlpi_phdr[i].p_type == PT_LOAD && info->dlpi_phdr[i].p_flags & PF_X)
      text = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
  counts[0]++;
  const struct ls_module *module = ls_module_find(text);
  if (module && module->bias == info->dlpi_addr && module->index && module->index <= recorded_modules)
    counts[1]++;
  else
    describe(text, "not in the table:");
  return 0;
}

static void test_modules(void) {
  running = "modules";
  unsigned counts[2] = {0, 0};
  dl_iterate_phdr(check_object, counts);
  verdict(counts[0] == counts[1] && counts[0] >= 3, "%u of %u loaded objects known", counts[1],
          counts[0]);
  char exe[4096];
  ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
  exe[n > 0 ? n : 0] = 0;
  const struct ls_module *own = ls_module_find((uintptr_t)test_modules);
  verdict(own && !strcmp(recorded_path[own->index], exe) && own->build_id_bytes == 20,
          "own path and build id (%u bytes)", own ? own->build_id_bytes : 0);
  verdict(!ls_module_find((uintptr_t)&counts) && !ls_module_find(16), "no module off the map");
  bool changed = ls_modules_rescan();
  verdict(!changed && !gone_modules, "a second scan changes nothing");
}

/* A file mapped for reading is no module, even next to the real one. */
static void test_data_mapping(void) {
  running = "ELF file mapped as data";
  Dl_info info;
  dladdr((void *)qsort, &info);
  int fd = open(info.dli_fname, O_RDONLY);
  struct stat status;
  fstat(fd, &status);
  unsigned before = recorded_modules;
  void *whole = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
  void *header = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
  close(fd);
  ls_modules_rescan();
  const struct ls_module *libc = ls_module_find((uintptr_t)qsort);
  verdict(whole != MAP_FAILED && header != MAP_FAILED && recorded_modules == before && libc &&
              libc->start == (uintptr_t)info.dli_fbase,
          "%u modules before, %u after", before, recorded_modules);
  munmap(whole, (size_t)status.st_size);
  munmap(header, 4096);
}

/* Code that belongs to no file costs one scan, not one a call. */
static void test_jit(void) {
  running = "code outside modules";
  uint8_t *code = mmap(NULL, 16384, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  memset(code, 0x90, 16384);
  struct timespec a, b;
  clock_gettime(CLOCK_MONOTONIC, &a);
  unsigned none = 0;
  for (unsigned i = 0; i < 10000; i++)
    none += ls_rule_lookup((uintptr_t)code + 100 + i, false) == ls_rule_lookup((uintptr_t)code + 1, false);
  clock_gettime(CLOCK_MONOTONIC, &b);
  double us = (double)(b.tv_sec - a.tv_sec) * 1e6 + (double)(b.tv_nsec - a.tv_nsec) / 1e3;
  verdict(none == 10000 && us < 200000, "10000 look-ups in %.0f us", us);
  /* What is known of addresses grows old: a module may come to lie there. */
  munmap(code, 16384);
  usleep(200000);
}

static void test_closing(const char *path) {
  running = "dlopen, dlclose";
  unsigned gone_before = gone_modules, recorded_before = recorded_modules;
  unsigned failed_before = failures;
  uint32_t epoch = ls_module_epoch();
  bool ok = true;
  for (unsigned i = 0; i < 50; i++) {
    void *handle = dlopen(path, RTLD_NOW);
    if (!handle) {
      verdict(false, "%s", dlerror());
      return;
    }
    void (*call)(callback) = (void (*)(callback))dlsym(handle, "plugin_call");
    quiet = i > 0;
    call(compare_here); /* found by refresh: nobody announced it */
    const struct ls_module *module = ls_module_find((uintptr_t)call);
    ok &= module && ls_module_is_intact(module);
    dlclose(handle);
    ok &= module && !ls_module_is_intact(module) && ls_modules_rescan() &&
          ls_module_find((uintptr_t)call) == NULL;
    ls_rules_clear();
    if (failures != failed_before)
      break;
  }
  quiet = false;
  verdict(ok && gone_modules - gone_before == 50 && ls_module_epoch() - epoch >= 50,
          "50 rounds, %u gone, %u recorded", gone_modules - gone_before,
          recorded_modules - recorded_before);
}

static void test_fork(void) {
  running = "fork";
  fflush(stdout);
  unsigned failed_before = failures;
  pid_t child = fork();
  if (!child) {
    recorded_modules = 0;
    ls_modules_reset_after_fork();
    ls_rules_reset_after_fork();
    ls_modules_rescan();
    quiet = true;
    compare_here();
    unsigned counts[2] = {0, 0};
    dl_iterate_phdr(check_object, counts);
    _exit(failures == failed_before && recorded_modules == counts[0] && counts[0] == counts[1] ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  verdict(status == 0, "child numbers its modules afresh");
}

/* Readers, scans and clears at once. */
static volatile bool stop_racing;
static void *race_reader(void *data) {
  unsigned long *wrong = data;
  while (!__atomic_load_n(&stop_racing, __ATOMIC_RELAXED)) {
    const struct ls_module *module = ls_module_find((uintptr_t)qsort);
    uint64_t rule = ls_rule_lookup((uintptr_t)race_reader + 20, false);
    uint64_t other = ls_rule_lookup((uintptr_t)qsort + 40, false);
    if (!module || ls_rule_module(rule) == ls_rule_module(other) ||
        ls_rule_module(other) != module->index)
      ++*wrong;
  }
  return NULL;
}
static void test_races(const char *path) {
  running = "readers against scans";
  pthread_t threads[3];
  unsigned long wrong[3] = {0, 0, 0};
  __atomic_store_n(&stop_racing, false, __ATOMIC_RELAXED);
  for (int i = 0; i < 3; i++)
    pthread_create(&threads[i], NULL, race_reader, &wrong[i]);
  for (int i = 0; i < 100; i++) {
    void *handle = path ? dlopen(path, RTLD_NOW) : NULL;
    ls_modules_rescan();
    if (handle)
      dlclose(handle);
    ls_modules_rescan();
    ls_rules_clear();
  }
  __atomic_store_n(&stop_racing, true, __ATOMIC_RELAXED);
  for (int i = 0; i < 3; i++)
    pthread_join(threads[i], NULL);
  verdict(wrong[0] + wrong[1] + wrong[2] == 0, "200 scans, %lu wrong answers",
          wrong[0] + wrong[1] + wrong[2]);
}

/* ---- symbols ---- */

void *own_symbol_probe(void) { return NULL; }

static void test_symbols(void) {
  running = "symbols";
  /* dlsym(RTLD_NEXT) from the main program: libraries only, as ls_next_symbol, which leaves
   * its own object out, and here that is the main program. */
  static const char *const names[] = {"malloc", "free", "calloc", "realloc", "posix_memalign",
                                      "aligned_alloc", "qsort", "pthread_create", "dlopen",
                                      "printf", "mmap", "memalign"};
  unsigned equal = 0, count = sizeof names / sizeof *names;
  for (unsigned i = 0; i < count; i++) {
    struct ls_symbol_origin origin = {0};
    void *expected = dlsym(RTLD_NEXT, names[i]), *found = ls_next_symbol(names[i], &origin);
    bool ok = expected == found && found && (uintptr_t)found >= origin.low &&
              (uintptr_t)found < origin.high && !origin.main_program && origin.path[0] == '/';
    if (!ok)
      printf("       %s: dlsym %p, ours %p in %s\n", names[i], expected, found, origin.path);
    equal += ok;
  }
  verdict(equal == count, "%u of %u as dlsym finds them", equal, count);
  /* An indirect function: libc picks by processor. */
  void *expected = dlsym(RTLD_NEXT, "memcpy"), *found = ls_next_symbol("memcpy", NULL);
  verdict(found && found == expected, "memcpy %p, dlsym %p", found, expected);
  verdict(!ls_next_symbol("no_such_function_here", NULL) && !ls_next_symbol("", NULL),
          "no definition, no address");
  verdict(!ls_program_defines("malloc"), "this program does not define malloc");
#ifdef __x86_64__
  const char *name = "__vdso_clock_gettime";
#else
  const char *name = "__kernel_clock_gettime";
#endif
  int (*gettime)(int, struct timespec *) = (int (*)(int, struct timespec *))ls_vdso_symbol(name);
  struct timespec a, b;
  clock_gettime(CLOCK_MONOTONIC, &a);
  if (gettime) {
    gettime(CLOCK_MONOTONIC, &b);
    verdict(b.tv_sec - a.tv_sec <= 1, "%s works", name);
  } else {
    verdict(getenv("QEMU") != NULL, "%s is missing", name);
  }
}

/* ---- rules of a file, for check_rules.py ---- */

static uintptr_t map_file(const char *path) {
  int fd = open(path, O_RDONLY);
  Elf64_Ehdr ehdr;
  if (fd < 0 || pread(fd, &ehdr, sizeof ehdr, 0) != sizeof ehdr) {
    perror(path);
    exit(2);
  }
  Elf64_Phdr ph[64];
  size_t count = ehdr.e_phnum < 64 ? ehdr.e_phnum : 64;
  if (pread(fd, ph, count * sizeof *ph, (off_t)ehdr.e_phoff) < 0)
    exit(2);
  uintptr_t high = 0;
  for (size_t i = 0; i < count; i++)
    if (ph[i].p_type == PT_LOAD && ph[i].p_vaddr + ph[i].p_memsz > high)
      high = ph[i].p_vaddr + ph[i].p_memsz;
  uintptr_t base = (uintptr_t)mmap(NULL, high + 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  for (size_t i = 0; i < count; i++) {
    if (ph[i].p_type != PT_LOAD)
      continue;
    uintptr_t skew = ph[i].p_vaddr & 4095;
    int protection = (ph[i].p_flags & PF_R ? PROT_READ : 0) | (ph[i].p_flags & PF_W ? PROT_WRITE : 0) |
                     (ph[i].p_flags & PF_X ? PROT_EXEC : 0);
    if (mmap((void *)(base + ph[i].p_vaddr - skew), ph[i].p_filesz + skew, protection,
             MAP_PRIVATE | MAP_FIXED, fd, (off_t)(ph[i].p_offset - skew)) == MAP_FAILED) {
      perror("mmap");
      exit(2);
    }
  }
  close(fd);
  return base;
}

static int print_rules(const char *path) {
  static const char *const kinds[] = {"none", "sp", "fp", "fp_deref", "signal", "end", "link"};
  uintptr_t base = map_file(path);
  ls_modules_rescan();
  char line[64];
  while (fgets(line, sizeof line, stdin)) {
    bool exact = line[0] == '=';
    uintptr_t address = strtoul(line + exact, NULL, 16);
    uint64_t rule = ls_rule_lookup(base + address, exact);
    printf("%lx %s %ld %ld ", (unsigned long)address, kinds[ls_rule_kind(rule)],
           (long)ls_rule_cfa_offset(rule), (long)ls_rule_ra_offset(rule));
    if (ls_rule_saves_fp(rule))
      printf("%ld\n", (long)ls_rule_fp_offset(rule));
    else
      puts("same");
  }
  return 0;
}

int main(int argc, char **argv) {
  if (argc == 3 && !strcmp(argv[1], "--rules"))
    return print_rules(argv[2]);
  running = "before main";
  verdict(failures == 0 && frames_compared > 3, "%u of %u frames equal", frames_equal,
          frames_compared);
  const char *plugin = argc > 1 ? argv[1] : NULL;
  static const struct {
    const char *name;
    void (*through)(int, callback);
  } kinds[] = {{"small frames", through_small},
               {"40 kB frames", through_large},
               {"alloca", through_alloca},
               {"realigned stack", through_realigned},
               {"-O0", through_unoptimised},
               {"frame pointers", through_frame_pointer}};
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
    running = kinds[i].name;
    expect_at_least = 12;
    kinds[i].through(10, compare_here);
  }
  running = "realigned alloca";
  through_realigned_alloca(10, compare_here, 1, 2, 3, 4, 5, 6);
  running = "many registers";
  through_many_registers(10, compare_here, 1, 2, 3, 4);
  expect_at_least = 2;
  running = "call is the last instruction";
  through_noreturn_tail(compare_here);
  running = "mixed frames";
  quiet = true;
  unsigned before = frames_compared;
  for (int i = 0; i < 300; i++)
    mixed(20, compare_here);
  quiet = false;
  verdict(failures == 0, "%u frames in 300 stacks", frames_compared - before);
  running = "qsort";
  in_qsort();
  running = "bsearch";
  in_bsearch();
  running = "twalk";
  in_twalk();
  running = "dl_iterate_phdr";
  in_dl_iterate_phdr();
  running = "pthread_once";
  in_once();
  running = "stdio";
  in_stdio();

  running = "signal handler";
  arm(0);
  raise_signal();
  through_realigned_alloca(3, raise_signal, 1, 2, 3, 4, 5, 6);
  running = "siginfo handler";
  arm(SA_SIGINFO);
  through_small(3, raise_signal);
  running = "signal on sigaltstack";
  stack_t stack = {.ss_sp = malloc(65536), .ss_size = 65536};
  sigaltstack(&stack, NULL);
  arm(SA_ONSTACK);
  through_alloca(3, raise_signal);
  running = "handler set without libc";
  ls_signal_handler(SIGUSR1, on_signal);
  through_small(3, raise_signal);
  running = "asynchronous signals";
  asynchronous();

  running = "thread";
  run_in_thread(compare_here);
  running = "thread, qsort";
  run_in_thread(in_qsort);
#ifdef WITH_CXX
  running = "C++";
  run_in_cxx(compare_here);
#endif
  test_modules();
  test_data_mapping();
  test_jit();
  test_symbols();
  if (plugin)
    test_closing(plugin);
  test_fork();
  test_races(plugin);
  printf("%u of %u frames equal; %u tests, %u failed\n", frames_equal, frames_compared, tests,
         failures);
  return failures != 0;
}
