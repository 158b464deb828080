// SPDX-License-Identifier: Apache-2.0
// main thread relies on POSIX lowest-fd rule (close(0);open()==0), workers only malloc/free and come and go; and fork children count their fds
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <fcntl.h>
#include <dirent.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
static volatile int stop; static long created;
static void*w(void*a){ void*p=malloc(50); ((volatile char*)p)[0]=1; free(p); return 0; }
static void*maker(void*a){ while(!stop){ pthread_t t[4]; for(int i=0;i<4;i++) pthread_create(t+i,0,w,0); for(int i=0;i<4;i++) pthread_join(t[i],0); created+=4;} return 0;}
static int fds(char*out){ int n=0; DIR*d=opendir("/proc/self/fd"); struct dirent*e; while((e=readdir(d))) { if(e->d_name[0]=='.'||atoi(e->d_name)==dirfd(d)) continue; char b[300],l[300]; snprintf(b,300,"/proc/self/fd/%s",e->d_name); ssize_t k=readlink(b,l,299); if(k<0)k=0; l[k]=0; if(atoi(e->d_name)>2 && strstr(l,"/proc")){n++; strcat(out,l); strcat(out," ");} } closedir(d); return n; }
int main(int c,char**v){ int secs=atoi(v[1]); pthread_t m; pthread_create(&m,0,maker,0); pthread_t m2; pthread_create(&m2,0,maker,0);
 long wrong=0,n=0,leaked=0,forks=0; char last[4000]=""; time_t e=time(0)+secs; int cnt=0;
 while(time(0)<e){ for(int i=0;i<200;i++){ close(0); int f=open("/dev/null",O_RDONLY); n++; if(f!=0){wrong++; dup2(f,0); close(f);} }
   int p[2]; pipe(p); pid_t q=fork(); if(!q){ char b[4000]=""; close(p[0]); dup2(p[1],1); close(p[1]); int k=fds(b); write(1,b,strlen(b)); _exit(k); } close(p[1]); char b[4000]; ssize_t r=read(p[0],b,3999); close(p[0]); int st; waitpid(q,&st,0); forks++; if(WEXITSTATUS(st)){leaked++; if(r>0){b[r]=0; strcpy(last,b);} } }
 stop=1; pthread_join(m,0); pthread_join(m2,0);
 fprintf(stderr,"threads %ld; close(0)+open %ld times, got another number %ld times; forks %ld, children with extra fds %ld (%s)\n",created,n,wrong,forks,leaked,last); return wrong||leaked; }
