// SPDX-License-Identifier: Apache-2.0
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
char *kept[100];
int main(void) { for (int i = 0; i < 60; i++) { char *p = malloc(100); memset(p, 1, 100); p = NULL; kept[i] = strdup("kept forever in a table"); char *q = realloc(malloc(10), 1000); free(q); usleep(6000); } puts("app done"); return 5; }
