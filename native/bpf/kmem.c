// SPDX-License-Identifier: Apache-2.0
/* leakscope-bpf kmem: loads kmem.bpf.c and hands over what it collected.
 *
 * Whoever starts it writes one letter for each thing that is wanted and reads the frames of kmem.h
 * from the standard output: `s` the sites as they are now, `e` everything, after which nothing is
 * attached any more. The end of the input ends it. Programs, maps and links are held by descriptors
 * of this process alone, so nothing is left in the kernel whatever becomes of it. */
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "kmem.h"
#include "loader.h"

extern const char lsb_object[], lsb_object_end[];

#define MEASURED_MS 200 /* how long our programs are timed after each moment */
#define NONE 255
#define FIRST_PID_NAMESPACE 0xEFFFFFFCu

static struct object object;
static struct lsb_config config;
static struct lsb_hello hello;
static unsigned processors;
static int statistics = -1;

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void send_bytes(const void *data, size_t size) {
  const char *at = data;
  while (size > 0) {
    ssize_t sent = write(1, at, size);
    if (sent < 0 && errno == EINTR)
      continue;
    if (sent <= 0)
      _exit(1); /* nobody reads any more */
    at += sent;
    size -= (size_t)sent;
  }
}

static void send_frame(enum lsb_frame frame, size_t size, size_t count, const void *data) {
  struct lsb_header head = {LSB_MAGIC, (uint16_t)frame, (uint16_t)size, (uint32_t)count, 0};
  send_bytes(&head, sizeof head);
  if (size * count > 0)
    send_bytes(data, size * count);
}

__attribute__((format(printf, 1, 2))) static void note(const char *format, ...) {
  char text[4096];
  va_list rest;
  va_start(rest, format);
  int size = vsnprintf(text, sizeof text, format, rest);
  va_end(rest);
  send_frame(LSB_NOTE, 1, size < (int)sizeof text ? (size_t)size : sizeof text - 1, text);
}

/* A line "NAME: errno NUMBER: words" on the standard error, and the end. */
__attribute__((noreturn)) static void give_up(const char *what, int why) {
  fprintf(stderr, "%s: errno %d: %s\n", what, why, strerror(why));
  exit(2);
}

/* ---- elements of maps as records of frames ---- */

struct sending {
  enum lsb_frame frame;
  size_t key, value, pad; /* bytes between a key and its value */
};

static int send_batch(void *to, const void *keys, const void *values, size_t count) {
  const struct sending *how = to;
  size_t size = how->key + how->pad + how->value;
  char *records = calloc(count, size);
  if (records == NULL)
    return -1;
  for (size_t i = 0; i < count; i++) {
    memcpy(records + i * size, (const char *)keys + i * how->key, how->key);
    memcpy(records + i * size + how->key + how->pad, (const char *)values + i * how->value,
           how->value);
  }
  send_frame(how->frame, size, count, records);
  free(records);
  return 0;
}

static void send_map(const char *name, enum lsb_frame frame) {
  const struct loaded_map *map = object_map(&object, name);
  struct sending how = {frame, map->is.key_size, map->is.value_size, map->is.key_size % 8};
  if (map_walk(map, send_batch, &how) != 0)
    note("not all of %s could be read: %s", name, strerror(errno));
}

/* ---- what happened so far ---- */

static void add_programs(struct lsb_moment *moment) {
  for (unsigned i = 0; i < object.n_programs; i++) {
    struct bpf_prog_info info = {0};
    union bpf_attr ask = {0};
    if (object.programs[i].fd < 0)
      continue;
    ask.info.bpf_fd = (uint32_t)object.programs[i].fd;
    ask.info.info_len = sizeof info;
    ask.info.info = (uintptr_t)&info;
    if (bpf_call(BPF_OBJ_GET_INFO_BY_FD, &ask, sizeof ask) != 0)
      continue;
    moment->runs += info.run_cnt;
    moment->run_ns += info.run_time_ns;
    moment->total.drops[LSB_DROP_NESTED] += info.recursion_misses;
  }
}

static void send_moment(void) {
  struct lsb_moment moment = {.now_ns = now_ns()};
  uint32_t zero = 0;
  struct lsb_counters *each = calloc(processors, sizeof *each);
  if (each == NULL || map_lookup(object_map(&object, "counters")->fd, &zero, each) != 0)
    give_up("the counters cannot be read", errno);
  for (unsigned i = 0; i < processors; i++) {
    for (int kind = 0; kind < LSB_KINDS; kind++) {
      moment.total.allocs[kind] += each[i].allocs[kind];
      moment.total.alloc_bytes[kind] += each[i].alloc_bytes[kind];
      moment.total.frees[kind] += each[i].frees[kind];
      moment.total.matched[kind] += each[i].matched[kind];
    }
    moment.total.samples += each[i].samples;
    for (int drop = 0; drop < LSB_DROPS; drop++)
      moment.total.drops[drop] += each[i].drops[drop];
  }
  free(each);
  add_programs(&moment);
  send_frame(LSB_MOMENT, sizeof moment, 1, &moment);
}

static void measure(int on) {
  if (on && statistics < 0) {
    union bpf_attr ask = {0};
    ask.enable_stats.type = BPF_STATS_RUN_TIME;
    statistics = (int)bpf_call(BPF_ENABLE_STATS, &ask, sizeof ask);
  } else if (!on && statistics >= 0) {
    close(statistics);
    statistics = -1;
  }
}

static void serve(void) {
  struct pollfd input = {.fd = 0, .events = POLLIN};
  for (;;) {
    char letter = 0;
    int ready = poll(&input, 1, statistics >= 0 ? MEASURED_MS : -1);
    if (ready < 0 && errno == EINTR)
      continue;
    measure(0);
    if (ready == 0)
      continue;
    ssize_t got = read(0, &letter, 1);
    if (got < 0 && errno == EINTR)
      continue;
    if (got <= 0)
      return;
    if (letter != 's' && letter != 'e')
      continue;
    if (letter == 'e')
      object_detach(&object);
    send_moment();
    send_map("sites", LSB_SITES);
    if (letter == 'e') {
      send_map("stacks", LSB_STACKS);
      send_map("caches", LSB_CACHES);
      send_map("tasks", LSB_TASKS);
      send_map("blocks", LSB_BLOCKS);
    }
    send_frame(LSB_DONE, 0, 0, NULL);
    if (letter == 'e')
      return;
    measure(1);
  }
}

/* ---- what this kernel is like ---- */

static uint32_t parameter(const struct btf *btf, const char *event, const char *type, int which) {
  static const struct btf_type *prototype;
  static const char *last;
  if (event != last) /* a look at all types takes milliseconds */
    prototype = btf_trace(btf, last = event);
  for (unsigned i = 0; i < 10; i++) {
    const char *found = btf_trace_parameter(btf, prototype, i);
    if (found == NULL)
      break;
    if (strcmp(found, type) == 0 && which-- == 0)
      return i;
  }
  return NONE;
}

static uint32_t offset(const struct btf *btf, const char *type, const char *member) {
  int found = btf_member(btf, type, member, NULL);
  if (found < 0) {
    fprintf(stderr, "this kernel's BTF has no %s.%s: errno 0: no such member\n", type, member);
    exit(2);
  }
  return (uint32_t)found;
}

static void learn_arguments(const struct btf *btf) {
  static const char kmalloc[] = "kmalloc", cache[] = "kmem_cache_alloc";
  static const char percpu[] = "percpu_alloc_percpu", percpu_free[] = "percpu_free_percpu";
  config.kmalloc_req = parameter(btf, kmalloc, "size_t", 0);
  config.kmalloc_alloc = parameter(btf, kmalloc, "size_t", 1);
  config.kmalloc_gfp = parameter(btf, kmalloc, "gfp_t", 0);
  config.cache_cache = parameter(btf, cache, "kmem_cache", 0);
  config.cache_alloc = parameter(btf, cache, "size_t", 1);
  config.cache_gfp = parameter(btf, cache, "gfp_t", 0);
  config.percpu_size = parameter(btf, percpu, "size_t", 2);
  if (config.percpu_size == NONE)
    config.percpu_size = parameter(btf, percpu, "size_t", 0);
  config.percpu_ptr = parameter(btf, percpu, "p", 1);
  config.percpu_free_ptr = parameter(btf, percpu_free, "p", 1);
  uint32_t asked = hello.kinds;
  if (config.by_cache && config.cache_cache == NONE)
    give_up("the events of this kernel do not tell the cache", ENOTSUP);
  if ((asked & 1u << LSB_KMALLOC && config.kmalloc_alloc == NONE) ||
      (asked & 1u << LSB_CACHE && config.cache_cache == NONE && config.cache_alloc == NONE) ||
      (asked & 1u << LSB_PERCPU && (config.percpu_size == NONE || config.percpu_ptr == NONE ||
                                    config.percpu_free_ptr == NONE)))
    give_up("events of this kernel have other arguments", ENOTSUP);
  config.kmem_cache_name = offset(btf, "kmem_cache", "name");
  config.kmem_cache_size = offset(btf, "kmem_cache", "size");
  config.kmem_cache_object_size = offset(btf, "kmem_cache", "object_size");
  config.kmem_cache_flags = offset(btf, "kmem_cache", "flags");
}

/* Where the cgroup of a task is found: that of cgroup v2, or that of one controller of v1. */
static void learn_cgroups(const struct btf *btf, const char *controller) {
  config.task_cgroups = offset(btf, "task_struct", "cgroups");
  if (*controller == 0) {
    config.css_set_cgroup = offset(btf, "css_set", "dfl_cgrp");
  } else {
    char name[96];
    snprintf(name, sizeof name, "%s_cgrp_id", controller);
    int64_t number = btf_enumerator(btf, name);
    if (number < 0)
      give_up("this kernel has no such cgroup controller", ENOENT);
    config.css_set_cgroup = offset(btf, "css_set", "subsys") + 8 * (uint32_t)number;
    config.css_set_is_css = 1;
    config.css_cgroup = offset(btf, "cgroup_subsys_state", "cgroup");
  }
  config.cgroup_kn = offset(btf, "cgroup", "kn");
  config.cgroup_parent = offset(btf, "cgroup", "self.parent");
  config.kn_id = offset(btf, "kernfs_node", "id");
  if (offset(btf, "cgroup", "self") != 0)
    give_up("cgroups of this kernel have another shape", ENOTSUP);
}

static void learn_namespace(void) {
  struct stat own;
  if (stat("/proc/self/ns/pid", &own) == 0 && own.st_ino != FIRST_PID_NAMESPACE) {
    config.pid_dev = own.st_dev;
    config.pid_ino = own.st_ino;
  }
}

/* Quantiles of the exponential distribution with the mean that was asked for. */
static void fill_intervals(void) {
  double mean = config.sample_bytes, sum = 0;
  for (int i = 0; i < LSB_INTERVALS; i++)
    sum += -log((i + 0.5) / LSB_INTERVALS);
  for (int i = 0; i < LSB_INTERVALS; i++)
    config.intervals[i] =
        (uint32_t)(mean * -log((i + 0.5) / LSB_INTERVALS) * LSB_INTERVALS / sum + 0.5);
}

/* ---- the start ---- */

static uint64_t number_of(const char *text) {
  char *end;
  errno = 0;
  unsigned long long value = strtoull(text, &end, 10);
  if (errno != 0 || *end != 0 || *text < '0' || *text > '9')
    give_up("a number is expected", EINVAL);
  return value;
}

static void option(const char *name, const char *value, const char **controller) {
  static unsigned aliases, selves;
  if (strcmp(name, "sample") == 0)
    config.sample_bytes = (uint32_t)number_of(value);
  else if (strcmp(name, "pid") == 0)
    config.tgid = (uint32_t)number_of(value);
  else if (strcmp(name, "except") == 0 && selves < LSB_SELF - 1)
    config.self[1 + selves++] = (uint32_t)number_of(value);
  else if (strcmp(name, "min") == 0)
    config.min_size = number_of(value);
  else if (strcmp(name, "max") == 0)
    config.max_size = number_of(value);
  else if (strcmp(name, "cgroup") == 0)
    config.cgroup = number_of(value);
  else if (strcmp(name, "controller") == 0)
    *controller = value;
  else if (strcmp(name, "movable") == 0)
    config.movable = (uint32_t)number_of(value);
  else if (strcmp(name, "kinds") == 0)
    hello.kinds = (uint32_t)number_of(value);
  else if (strcmp(name, "blocks") == 0)
    hello.most_blocks = (uint32_t)number_of(value);
  else if (strcmp(name, "sites") == 0)
    hello.most_sites = (uint32_t)number_of(value);
  else if (strcmp(name, "cache") == 0 && aliases < LSB_ALIASES) {
    config.by_cache = 1;
    strncpy(config.aliases[aliases++], value, LSB_NAME - 1);
  } else {
    fprintf(stderr, "unknown option %s: errno 22: Invalid argument\n", name);
    exit(2);
  }
}

static const struct {
  const char *target;
  int kind;
} groups[] = {
    {"kmalloc", LSB_KMALLOC},
    {"kmalloc_node", LSB_KMALLOC},
    {"kfree", LSB_KMALLOC},
    {"kmem_cache_alloc", LSB_CACHE},
    {"kmem_cache_alloc_node", LSB_CACHE},
    {"kmem_cache_free", LSB_CACHE},
    {"mm_page_alloc", LSB_PAGE},
    {"mm_page_free", LSB_PAGE},
    {"percpu_alloc_percpu", LSB_PERCPU},
    {"percpu_free_percpu", LSB_PERCPU},
    {"alloc_vmap_area", LSB_VMALLOC},
    {"free_vmap_area_noflush", LSB_VMALLOC},
};

static int kind_of(const struct program *program) {
  for (size_t i = 0; i < sizeof groups / sizeof *groups; i++)
    if (strcmp(groups[i].target, program->target) == 0)
      return groups[i].kind;
  return -1; /* frees of objects by other ways */
}

/* Frees first: what is allocated from then on is never seen without its end. */
static void attach_all(const struct btf *btf) {
  uint32_t asked = hello.kinds;
  hello.kinds = 0;
  for (int allocations = 0; allocations < 2; allocations++) {
    for (unsigned i = 0; i < object.n_programs; i++) {
      struct program *program = &object.programs[i];
      int kind = kind_of(program), bulk = kind < 0;
      int allocates = !bulk && strstr(program->target, "alloc") != NULL &&
                      strstr(program->target, "free") == NULL;
      uint32_t slab = 1u << LSB_KMALLOC | 1u << LSB_CACHE;
      if (allocates != allocations || !(bulk ? asked & slab : asked & 1u << kind))
        continue;
      if (!bulk && btf_trace(btf, program->target) == NULL)
        continue; /* newer or older kernels have it */
      if (object_attach(&object, program, btf) == 0) {
        hello.bulk += (uint32_t)bulk;
        if (allocates)
          hello.kinds |= 1u << kind;
        continue;
      }
      int why = errno;
      if (getenv("LEAKSCOPE_BPF_LOG") != NULL)
        fprintf(stderr, "%s\n", object.log);
      if (!bulk)
        give_up(program->target, why);
      note("frees by %s are not seen: %s", program->target, strerror(why));
    }
  }
}

static unsigned possible_processors(void) {
  unsigned from = 0, last = 0, most = 0;
  FILE *file = fopen("/sys/devices/system/cpu/possible", "re");
  if (file == NULL)
    give_up("/sys/devices/system/cpu/possible", errno);
  while (fscanf(file, "%u", &from) == 1) {
    last = from;
    if (fscanf(file, "-%u", &last) != 1)
      last = from;
    most = last > most ? last : most;
    if (fgetc(file) != ',')
      break;
  }
  fclose(file);
  return most + 1;
}

static void start_sampling(void) {
  struct lsb_counters *each = calloc(processors, sizeof *each);
  uint32_t zero = 0;
  if (each == NULL)
    give_up("no memory", ENOMEM);
  srandom((unsigned)now_ns());
  for (unsigned i = 0; i < processors; i++)
    each[i].left = config.intervals[random() % LSB_INTERVALS];
  if (map_update(object_map(&object, "counters")->fd, &zero, each) != 0)
    give_up("the counters cannot be set", errno);
  free(each);
}

static uint64_t memory_of_maps(void) {
  uint64_t sum = 0;
  for (unsigned i = 0; i < object.n_maps; i++) {
    const struct lsb_map *map = &object.maps[i].is;
    uint64_t value = (map->value_size + 7) / 8 * 8;
    if (map->type == BPF_MAP_TYPE_HASH) {
      uint64_t buckets = 1;
      while (buckets < map->max_entries)
        buckets *= 2;
      sum += buckets * 16 + map->max_entries * (48 + (map->key_size + 7) / 8 * 8 + value);
    } else {
      sum += map->max_entries * value * (map->type == BPF_MAP_TYPE_PERCPU_ARRAY ? processors : 1);
    }
  }
  return sum;
}

int main(int argc, char **argv) {
  const char *controller = "";
  if (argc < 2 || strcmp(argv[1], "kmem") != 0) {
    fprintf(stderr, "usage: leakscope-bpf kmem [NAME=VALUE...]: errno 22: Invalid argument\n");
    return 2;
  }
  static const int left_alone[] = {SIGINT, SIGQUIT, SIGTERM, SIGHUP};
  /* Signals of a terminal or a supervisor are for whoever started us: the end of the input tells us. */
  for (size_t i = 0; i < sizeof left_alone / sizeof *left_alone; i++)
    signal(left_alone[i], SIG_IGN);
  config.max_size = UINT64_MAX;
  config.self[0] = (uint32_t)getpid();
  hello.kinds = (1u << LSB_KINDS) - 1;
  if (object_open(&object, lsb_object, (size_t)(lsb_object_end - lsb_object)) != 0)
    give_up("the BPF object is damaged", EINVAL);
  hello.most_blocks = object_map(&object, "blocks")->is.max_entries;
  hello.most_sites = object_map(&object, "sites")->is.max_entries;
  for (int i = 2; i < argc; i++) {
    char *equals = strchr(argv[i], '=');
    if (equals == NULL)
      give_up(argv[i], EINVAL);
    *equals = 0;
    option(argv[i], equals + 1, &controller);
  }
  struct btf *btf = btf_read("/sys/kernel/btf/vmlinux");
  if (btf == NULL)
    give_up("/sys/kernel/btf/vmlinux", errno);
  learn_arguments(btf);
  if (config.cgroup != 0)
    learn_cgroups(btf, controller);
  learn_namespace();
  config.page_shift = (uint32_t)__builtin_ctzl((unsigned long)sysconf(_SC_PAGESIZE));
  fill_intervals();
  processors = possible_processors();
  object_map(&object, "blocks")->is.max_entries = hello.most_blocks;
  object_map(&object, "sites")->is.max_entries = hello.most_sites;
  struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};
  setrlimit(RLIMIT_MEMLOCK, &unlimited); /* kernels before 5.11 count maps there */
  if (object_make_maps(&object, &config, sizeof config) != 0)
    give_up("maps cannot be made", errno);
  start_sampling();
  hello.version = LSB_VERSION;
  hello.processors = processors;
  hello.most_stacks = object_map(&object, "stacks")->is.max_entries;
  hello.sample_bytes = config.sample_bytes;
  hello.memory = memory_of_maps();
  attach_all(btf);
  btf_free(btf);
  hello.start_ns = now_ns();
  send_frame(LSB_HELLO, sizeof hello, 1, &hello);
  serve();
  return 0;
}
