// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * What was asked for: LEAKSCOPE_* in the environment the program was started with, or
 * a line for this program in the config file. Read once, before anything else runs.
 */
#include "apart.h"
#include "config.h"
#include "exec.h"
#include "resolve.h"
#include "str.h"
#include "sys.h"
#include "thread.h"

#define DEFAULT_CONFIG "/etc/leakscope.conf"

struct ls_config ls_config = {
    .depth = LS_MAX_DEPTH,
    .keep = 512,
    .keep_bytes = 1ull << 30,
    .children = true,
    .filters = LS_FILTERS_UNKNOWN,
};

static bool starts_with(const char *text, const char *prefix) {
  while (*prefix)
    if (*text++ != *prefix++)
      return false;
  return true;
}

static bool equal(const char *a, const char *b) {
  while (*a && *a == *b)
    a++, b++;
  return *a == *b;
}

static size_t length(const char *text) {
  size_t n = 0;
  while (text[n])
    n++;
  return n;
}

static void copy(char *out, size_t bytes, const char *text) {
  size_t n = length(text);
  if (n >= bytes)
    n = 0; /* too long to use: as if not given */
  memcpy(out, text, n);
  out[n] = 0;
}

/* "4096", "512KiB", "1M": bytes; 0 when it is no number. */
static uint64_t parse_size(const char *text) {
  uint64_t value = 0;
  for (; *text >= '0' && *text <= '9'; text++)
    value = value * 10 + (uint64_t)(*text - '0');
  switch (*text | 32) {
  case 'g':
    value <<= 10; /* fall through */
  case 'm':
    value <<= 10; /* fall through */
  case 'k':
    value <<= 10;
  }
  return value;
}

static uint64_t parse_seconds(const char *text) {
  uint64_t ns = 0, unit = 1000000000u;
  bool fraction = false;
  for (; (*text >= '0' && *text <= '9') || (*text == '.' && !fraction); text++) {
    if (*text == '.') {
      fraction = true;
    } else if (!fraction) {
      ns = ns * 10 + (uint64_t)(*text - '0') * 1000000000u;
    } else {
      unit /= 10;
      ns += (uint64_t)(*text - '0') * unit;
    }
  }
  return ns;
}

static int parse_signal(const char *text) {
  static const struct {
    const char *name;
    int number;
  } names[] = {{"HUP", 1},   {"INT", 2},   {"QUIT", 3}, {"USR1", 10},  {"USR2", 12},
               {"ALRM", 14}, {"TERM", 15}, {"URG", 23}, {"WINCH", 28}, {"PWR", 30}};
  if (*text >= '0' && *text <= '9') {
    uint64_t number = parse_size(text);
    return number > 0 && number < 65 ? (int)number : 0;
  }
  if (starts_with(text, "SIG"))
    text += 3;
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (equal(text, names[i].name))
      return names[i].number;
  return 0;
}

static void set_variable(const char *text) {
  struct ls_config *config = &ls_config;
  const char *value = text;
  ls_exec_save(text);
  while (*value && *value != '=')
    value++;
  if (!*value)
    return;
  value++;
  if (starts_with(text, "LEAKSCOPE_DIR="))
    copy(config->dir, sizeof config->dir, value);
  else if (starts_with(text, "LEAKSCOPE_SAMPLE="))
    config->sample_bytes = parse_size(value);
  else if (starts_with(text, "LEAKSCOPE_MIN_SIZE="))
    config->min_size = parse_size(value);
  else if (starts_with(text, "LEAKSCOPE_MAX_SIZE="))
    config->max_size = parse_size(value);
  else if (starts_with(text, "LEAKSCOPE_DEPTH="))
    config->depth = (uint32_t)parse_size(value);
  else if (starts_with(text, "LEAKSCOPE_START_AFTER="))
    config->start_after_ns = parse_seconds(value);
  else if (starts_with(text, "LEAKSCOPE_START_SIGNAL="))
    config->start_signal = parse_signal(value);
  else if (starts_with(text, "LEAKSCOPE_STOP_SIGNAL="))
    config->stop_signal = parse_signal(value);
  else if (starts_with(text, "LEAKSCOPE_DUMP_SIGNAL="))
    config->dump_signal = parse_signal(value);
  else if (starts_with(text, "LEAKSCOPE_KEEP="))
    config->keep = (uint32_t)parse_size(value);
  else if (starts_with(text, "LEAKSCOPE_KEEP_BYTES="))
    config->keep_bytes = parse_size(value);
  else if (starts_with(text, "LEAKSCOPE_CHILDREN="))
    config->children = value[0] != '0';
  else if (starts_with(text, "LEAKSCOPE_SECCOMP="))
    config->filters = (uint32_t)parse_size(value);
  else if (starts_with(text, "LEAKSCOPE_SCAN="))
    copy(config->scan_socket, sizeof config->scan_socket, value);
  else if (starts_with(text, "LEAKSCOPE_ONLY="))
    copy(config->only, sizeof config->only, value);
  else if (starts_with(text, "LEAKSCOPE_EXCLUDE="))
    copy(config->exclude, sizeof config->exclude, value);
  else if (starts_with(text, "LEAKSCOPE_CONFIG="))
    copy(config->config_path, sizeof config->config_path, value);
}

/* Call `each` for every string of a file, split at `separator`; strings longer than
 * the buffer are skipped whole. */
static void for_each_string(int fd, char separator, void (*each)(const char *)) {
  char text[700];
  char chunk[512];
  size_t n = 0;
  bool skip = false;
  long got;
  while ((got = ls_read(fd, chunk, sizeof chunk)) > 0)
    for (long i = 0; i < got; i++) {
      if (chunk[i] == separator) {
        text[n] = 0;
        if (!skip && n)
          each(text);
        n = 0;
        skip = false;
      } else if (n + 1 < sizeof text) {
        text[n++] = chunk[i];
      } else {
        skip = true;
      }
    }
  text[n] = 0;
  if (!skip && n)
    each(text);
}

/* ---- the config file ---- */

static char own_path[512];
static bool file_names_us;

static bool names_program(const char *word) {
  if (*word == '/')
    return equal(word, own_path);
  const char *base = own_path;
  for (const char *c = own_path; *c; c++)
    if (*c == '/')
      base = c + 1;
  return equal(word, base);
}

/* ---- programs that are chosen by name ---- */

/* Whether a name fits a pattern, which ends at a slash: * is any text, ? any character. */
static bool fits(const char *pattern, const char *name) {
  const char *star = NULL, *again = NULL; /* where to go on when the last * takes one more */
  for (;;) {
    bool ended = !*pattern || *pattern == '/';
    if (!ended && *pattern == '*') {
      star = ++pattern;
      again = name;
    } else if (*name && !ended && (*pattern == '?' || *pattern == *name)) {
      pattern++, name++;
    } else if (!*name && ended) {
      return true;
    } else if (star && *again) {
      pattern = star;
      name = ++again;
    } else {
      return false;
    }
  }
}

static bool names_one(const char *patterns, const char *name) {
  while (*patterns) {
    if (fits(patterns, name))
      return true;
    while (*patterns && *patterns != '/')
      patterns++;
    if (*patterns)
      patterns++;
  }
  return false;
}

static void choose(struct ls_config *config) {
  if (!config->only[0] && !config->exclude[0])
    return;
  ls_readlink("/proc/self/exe", own_path, sizeof own_path - 1);
  const char *name = own_path;
  for (const char *c = own_path; *c; c++)
    if (*c == '/')
      name = c + 1;
  config->left_out = (config->only[0] && !names_one(config->only, name)) ||
                     names_one(config->exclude, name);
}

/* trace PROGRAM [dir=DIR] [sample=BYTES] [min=BYTES] [max=BYTES] [depth=N] [keep=N] [seccomp=N] */
static void config_line(const char *line) {
  char words[8][300];
  size_t count = 0;
  while (*line && count < 8) {
    while (*line == ' ' || *line == '\t')
      line++;
    if (!*line || *line == '#')
      break;
    size_t n = 0;
    while (*line && *line != ' ' && *line != '\t') {
      if (n + 1 < sizeof words[0])
        words[count][n++] = *line;
      line++;
    }
    words[count++][n] = 0;
  }
  if (count < 2 || !equal(words[0], "trace") || !names_program(words[1]))
    return;
  struct ls_config *config = &ls_config;
  file_names_us = true;
  copy(config->dir, sizeof config->dir, "/var/tmp");
  for (size_t i = 2; i < count; i++) {
    if (starts_with(words[i], "dir="))
      copy(config->dir, sizeof config->dir, words[i] + 4);
    else if (starts_with(words[i], "keep="))
      config->keep = (uint32_t)parse_size(words[i] + 5);
    else if (starts_with(words[i], "sample="))
      config->sample_bytes = parse_size(words[i] + 7);
    else if (starts_with(words[i], "min="))
      config->min_size = parse_size(words[i] + 4);
    else if (starts_with(words[i], "max="))
      config->max_size = parse_size(words[i] + 4);
    else if (starts_with(words[i], "seccomp="))
      config->filters = (uint32_t)parse_size(words[i] + 8);
    else if (starts_with(words[i], "depth="))
      config->depth = (uint32_t)parse_size(words[i] + 6);
  }
}

static void clamp_depth(void) {
  if (ls_config.depth < 1 || ls_config.depth > LS_MAX_DEPTH)
    ls_config.depth = LS_MAX_DEPTH;
}

/* Whether it may be obeyed; stores when it was changed. */
static bool is_trusted(const struct ls_stat *status, int64_t *ret_mtime) {
  bool trusted = (status->uid == 0 || status->uid == ls_geteuid()) && !(status->mode & 022);
  *ret_mtime = trusted ? status->mtime_ns : 0;
  return trusted;
}

/* No O_NOFOLLOW: /etc may hold a link to the deployed file; its owner is checked instead. */
static long read_config_file(void *mtime) {
  struct ls_config *config = &ls_config;
  int fd = ls_open(config->config_path, 02000000 /* O_CLOEXEC */, 0);
  if (fd == -24 /* EMFILE */)
    return fd; /* it is there, but not to be read here */
  struct ls_stat status;
  file_names_us = false;
  config->config_mtime = *(int64_t *)mtime;
  if (fd >= 0) {
    if (ls_fstat(fd, &status) == 0 && is_trusted(&status, &config->config_mtime))
      for_each_string(fd, '\n', config_line);
    ls_close(fd);
  }
  return 0;
}

bool ls_config_file_check(void) {
  struct ls_config *config = &ls_config;
  struct ls_stat status;
  int64_t mtime = 0;
  if (ls_stat(config->config_path, &status) == 0)
    is_trusted(&status, &mtime);
  if (mtime == config->config_mtime)
    return false;
  bool before = config->enabled;
  if (ls_apart(read_config_file, &mtime) < 0)
    return false; /* another time */
  clamp_depth();
  config->enabled = file_names_us;
  config->from_file = true;
  return before != config->enabled;
}

/* Someone else's privileges (set-uid, file capabilities): the environment is not ours to obey. */
static bool privileges_were_raised(void) {
  return ls_getuid() != ls_geteuid() || ls_getgid() != ls_getegid() ||
         ls_auxiliary(23 /* AT_SECURE */) != 0;
}

static long read_environment(void *unused) {
  (void)unused;
  int fd = ls_open("/proc/self/environ", 02000000 /* O_CLOEXEC */, 0);
  if (fd < 0)
    return fd;
  for_each_string(fd, 0, set_variable);
  ls_close(fd);
  return 0;
}

void ls_config_read(void) {
  struct ls_config *config = &ls_config;
  copy(config->config_path, sizeof config->config_path, DEFAULT_CONFIG);
  if (!privileges_were_raised())
    ls_apart(read_environment, NULL);
  clamp_depth();
  if (config->dir[0] == '/') {
    config->enabled = true;
    config->config_path[0] = 0;
    choose(config);
    return;
  }
  config->dir[0] = 0;
  ls_readlink("/proc/self/exe", own_path, sizeof own_path - 1);
  struct ls_stat status;
  if (ls_stat(config->config_path, &status) < 0) {
    /* No file now; stay dormant and look again, which is how it is switched on. */
    config->config_mtime = 0;
    return;
  }
  ls_config_file_check();
}
