// SPDX-License-Identifier: Apache-2.0
// an ordinary user with RLIMIT_MEMLOCK 64 MiB locks its memory (keyrings, audio, ntpd do); then forks
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <errno.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <sys/resource.h>
#include <pthread.h>
static void*th(void*a){ return malloc(100);} 
int main(int c,char**v){ struct rlimit r={64<<20,64<<20}; 
 int flags=!strcmp(v[1],"cur")?MCL_CURRENT:!strcmp(v[1],"fut")?MCL_FUTURE:(MCL_CURRENT|MCL_FUTURE);
 setrlimit(RLIMIT_MEMLOCK,&r);
 if(c>2 && setuid(65534))perror("setuid");
 int rc=mlockall(flags); printf("mlockall %d %s\n",rc,rc?strerror(errno):""); 
 for(int i=0;i<20000;i++){ char*p=malloc(200+i%50); if(!p){puts("malloc failed");break;} memset(p,1,100);} 
 pid_t p=fork(); if(!p){ for(int i=0;i<1000;i++) malloc(100); _exit(7);} if(p<0)printf("fork %s\n",strerror(errno)); int st=0; waitpid(p,&st,0); printf("child %x\n",st);
 pthread_t t; rc=pthread_create(&t,0,th,0); printf("thread %d\n",rc); if(!rc)pthread_join(t,0);
 FILE*f=fopen("/proc/self/status","r"); char l[200]; while(fgets(l,200,f)) if(strstr(l,"VmLck")) fprintf(stderr,"%s",l); return 0;}
