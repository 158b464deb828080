// SPDX-License-Identifier: Apache-2.0
// worker thread does its first malloc on a coroutine stack (bounds = that mapping). Big coroutine, then its memory is
// partly unmapped and a smaller coroutine uses the lower part: same pc and sp, but the old outer words are gone.
#define _GNU_SOURCE
#include <ucontext.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <stdint.h>
#include <sys/mman.h>
static __thread ucontext_t m,c; static int depth; static char*volatile target; static int times;
static __attribute__((noinline,optimize("no-optimize-sibling-calls"))) void leaf(void){ for(int i=0;i<times;i++){ void*volatile p=malloc(24); free(p);} }
static __attribute__((noinline,optimize("no-optimize-sibling-calls"))) void rec(void){ volatile char x[2000]; x[0]=1; if((char*)__builtin_frame_address(0)-target>=2200) rec(); else leaf(); x[1]=2; }
static void co(void){ rec(); swapcontext(&c,&m); }
static void run(char*s,size_t n){ getcontext(&c); c.uc_stack.ss_sp=s; c.uc_stack.ss_size=n; c.uc_link=&m; makecontext(&c,co,0); swapcontext(&m,&c); }
static void*th(void*a){ char*b=a;
  times=5; target=b+8192; run(b,1<<16);
  munmap(b+16384,(1<<16)-16384);            // pool is re-cut: only 16 KB are left
  times=5; for(int o=0;o<2100;o+=16) run(b,16384-o);
  puts("fine"); return 0; }
int main(){ pthread_t t; pthread_create(&t,0,th,mmap(0,1<<16,3,MAP_PRIVATE|MAP_ANONYMOUS,-1,0)); pthread_join(t,0); return 0; }
