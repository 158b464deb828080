// SPDX-License-Identifier: Apache-2.0
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static char*volatile last;
__attribute__((noinline)) static void rec(unsigned path,int d){ if(!d){ char*p=malloc(64); p[0]=1; last=p; free(p); asm volatile(""); return;} if(path&1){ rec(path>>1,d-1); asm volatile("nop"); } else { rec(path>>1,d-1); asm volatile("nop;nop"); } }
__attribute__((noinline)) static char* the_leak(int i){ char*p=malloc(4096); asm volatile(""); return p;} 
__attribute__((noinline)) static void good_caller(int i){ last=the_leak(i); asm volatile(""); }
int main(int c,char**v){ int bits=21; long n=1500000; unsigned x=1; for(long i=0;i<n;i++){ x=x*1664525+1013904223; rec(x>>(32-bits),bits);} for(int i=0;i<400;i++){ good_caller(i); usleep(5000);} return 0;}
