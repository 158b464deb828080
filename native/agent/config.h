// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * What whoever started the program asks for.
 */
#ifndef LEAKSCOPE_CONFIG_H
#define LEAKSCOPE_CONFIG_H

#include "base.h"

#pragma GCC visibility push(hidden) /* no GOT between our own files */

#define LS_FILTERS_UNKNOWN UINT32_MAX
struct ls_config {
  char dir[512];
  uint64_t sample_bytes, min_size, max_size;
  uint64_t start_after_ns;
  uint32_t depth;
  uint32_t keep;       /* recordings of ended processes in `dir`; 0: all */
  uint64_t keep_bytes; /* all recordings there together */
  int start_signal, stop_signal, dump_signal;
  bool children;
  bool enabled;     /* LEAKSCOPE_DIR was given, or the config file names this program */
  bool from_file;   /* enabled by the config file */
  char config_path[256];
  int64_t config_mtime;
  uint32_t filters; /* that whoever started us lives under too, and tried; LS_FILTERS_UNKNOWN */
  char only[256], exclude[256]; /* names of programs, with * and ?, between slashes */
  bool left_out;                /* they leave this program out: it records nothing */
  char scan_socket[108]; /* who scans memory before this process ends; empty: nobody */
};
extern struct ls_config ls_config;

void ls_config_read(void);
bool ls_config_file_check(void); /* whether the file's answer changed */

#pragma GCC visibility pop

#endif
