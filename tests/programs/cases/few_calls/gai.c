// SPDX-License-Identifier: Apache-2.0
/* arg addr: getaddrinfo without freeaddrinfo, N times; env: setenv; loc: newlocale; ic: iconv_open; exit: on_exit */
#define _GNU_SOURCE
#include <iconv.h>
#include <locale.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
__attribute__((noinline)) static void resolve(void) { struct addrinfo *a, h = {.ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM}; getaddrinfo("127.0.0.1", "80", &h, &a); memset(&a, 0, sizeof a); asm volatile("" ::: "memory"); }
__attribute__((noinline)) static void conv(void) { iconv_t c = iconv_open("UTF-16", "UTF-8"); asm volatile("" ::"r"(c)); }
__attribute__((noinline)) static void loc(void) { locale_t l = newlocale(LC_ALL_MASK, "C.UTF-8", 0); asm volatile("" ::"r"(l)); }
__attribute__((noinline)) static void wipe(void) { volatile char b[65536]; memset((void *)b, 0, sizeof b); }
int main(int c, char **v) {
  int n = atoi(v[2]);
  for (int i = 0; i < n; i++) { if (v[1][0] == 'a') resolve(); if (v[1][0] == 'i') conv(); if (v[1][0] == 'l') loc(); wipe(); usleep(300000 / n); }
  puts("gai done"); return 0;
}
