// SPDX-License-Identifier: Apache-2.0
#include <stdlib.h>
#include <string.h>
/* takes ownership of a record made by the host and releases it */
void plugin_release(char *record) { free(record); }
/* a real leak inside of the plugin */
void plugin_forget(void) { char *p = malloc(333); memset(p, 1, 333); }
