// SPDX-License-Identifier: Apache-2.0
#ifndef X_H
#define X_H
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>
static double x_now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + t.tv_nsec / 1e9; }
static double x_secs(int c, char **v) { return c > 1 ? atof(v[1]) : 2.0; }
static void x_nap(int us) { struct timespec t = {0, us * 1000L}; nanosleep(&t, 0); }
#define NOINLINE __attribute__((noinline))
#define USE(p) __asm__ volatile("" : : "r"(p) : "memory")
/* overwrite the stack and registers that a call left behind */
static NOINLINE void x_wipe(void) { volatile char b[8192]; memset((void *)b, 0, sizeof b); USE(b);
  __asm__ volatile("xor %%eax,%%eax\n xor %%ecx,%%ecx\n xor %%edx,%%edx\n xor %%esi,%%esi\n xor %%edi,%%edi\n" : : : "rax", "rcx", "rdx", "rsi", "rdi"); }
#endif
