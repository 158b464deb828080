// SPDX-License-Identifier: Apache-2.0
// sets RLIMIT_AS N MiB above what it uses now, then uses it; forks
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <errno.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <pthread.h>
static void*th(void*a){return malloc(10);}
int main(int c,char**v){ int mode=atoi(v[1]); struct rlimit r={512ul<<20,512ul<<20}; int rc= mode==0?setrlimit(RLIMIT_AS,&r): mode==1?prlimit(0,RLIMIT_AS,&r,0): mode==2?syscall(SYS_prlimit64,0,RLIMIT_AS,&r,NULL):0; if(mode==3){char cmd[100]; snprintf(cmd,100,"prlimit --as=536870912 --pid %d",getpid()); system(cmd);} 
 int ok=0; char*k[1000]; for(;ok<400;ok++){ k[ok]=malloc(1<<20); if(!k[ok])break; memset(k[ok],1,1<<20);} printf("rc %d got %d MiB\n",rc,ok); fflush(stdout); pthread_t t; printf("thread %d\n",pthread_create(&t,0,th,0)); fflush(stdout); pid_t p=fork(); if(!p){ void*q=malloc(100000); printf("child %d\n",q!=0); fflush(stdout); execl("/bin/true","true",NULL); _exit(9);} if(p<0) printf("fork %s\n",strerror(errno)); int st=0; waitpid(p,&st,0); printf("child %x\n",st); return 0;}
