// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <pthread.h>
#include <sys/resource.h>
static double now(){struct timespec t;clock_gettime(CLOCK_MONOTONIC,&t);return t.tv_sec+t.tv_nsec/1e9;}
static int bits; static long n;
__attribute__((noinline)) static void rec(unsigned path,int d){ if(!d){ char*p=malloc(64); p[0]=1; asm volatile(""::"r"(p):"memory"); free(p); return;} if(path&1){ rec(path>>1,d-1); asm volatile("nop"); } else { rec(path>>1,d-1); asm volatile("nop;nop"); } }
static void*th(void*a){ unsigned x=(long)a; for(long i=0;i<n;i++){ x=x*1664525+1013904223; rec(x>>(32-bits),bits);} return 0;}
int main(int c,char**v){ bits=atoi(v[1]); n=atol(v[2]); int T=atoi(v[3]); double t0=now(); pthread_t t[64]; for(long i=0;i<T;i++)pthread_create(&t[i],0,th,(void*)(i+1)); for(int i=0;i<T;i++)pthread_join(t[i],0);
 char l[300]; FILE*f=fopen("/proc/self/status","r"); while(fgets(l,300,f)) if(strstr(l,"VmRSS")||strstr(l,"RssShmem")||strstr(l,"RssAnon")) fprintf(stderr,"%s",l); fprintf(stderr,"%.1fs\n",now()-t0); return 0;}
