// SPDX-License-Identifier: Apache-2.0
// as pid 1 of a pid namespace: signals whose action is default are ignored by the kernel
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <errno.h>
#include <signal.h>
#include <time.h>
#include <sys/wait.h>
#include <sys/epoll.h>
int main(int c,char**v){ printf("pid %d\n",getpid());
 pid_t p=fork(); if(!p){ for(int i=0;i<3;i++){usleep(200000); kill(1,i==0?SIGTERM:i==1?SIGINT:SIGHUP);} _exit(0);} 
 int e=epoll_create1(0); struct epoll_event ev; int eintr=0; struct timespec t0,t1; clock_gettime(CLOCK_MONOTONIC,&t0);
 for(int i=0;i<1;i++){ int r=epoll_wait(e,&ev,1,1500); if(r<0&&errno==EINTR){eintr++; } }
 clock_gettime(CLOCK_MONOTONIC,&t1);
 for(int i=0;i<100;i++){char*q=malloc(1000); q[0]=1; asm volatile(""::"r"(q):"memory");}
 printf("eintr %d waited %s\n",eintr,(t1.tv_sec-t0.tv_sec)+(t1.tv_nsec-t0.tv_nsec)/1e9>1.3?"full":"SHORT"); return 0;}
