// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * The recording's file: how it comes to be, and where it is.
 */
#ifndef LEAKSCOPE_RECORDING_FILE_H
#define LEAKSCOPE_RECORDING_FILE_H

#include "process.h"

bool ls_recording_create(struct ls_live *live, uint32_t forked_from);
const char *ls_recording_path(void);
int ls_recording_open(void);

#endif
