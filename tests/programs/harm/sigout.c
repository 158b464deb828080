// SPDX-License-Identifier: Apache-2.0
// thread 2 keeps printing a counter; main gets SIGTERM by kill(getpid()) / or crashes: how much is printed after the signal?
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <signal.h>
#include <time.h>
static volatile long n;
static double now(void){struct timespec t;clock_gettime(CLOCK_MONOTONIC,&t);return t.tv_sec+t.tv_nsec/1e9;}
static volatile double at;
static void*w(void*a){ for(;;){ if(at){ char b[100]; int k=snprintf(b,100,"still alive %.1f ms after the fatal signal: request %ld served\n",(now()-at)*1e3,n++); write(1,b,k);} usleep(5000);} }
int main(int c,char**v){ size_t mb=atoi(v[2]); for(size_t i=0;i<mb*4096;i++){ char**p=malloc(240); static char**l; *p=(char*)l; l=p; }
 pthread_t t; pthread_create(&t,0,w,0); usleep(100000); at=now(); if(v[1][0]=='t') kill(getpid(),SIGTERM); if(v[1][0]=='s') *(volatile int*)8=1; if(v[1][0]=='a') abort(); pause(); }
