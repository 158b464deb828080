// SPDX-License-Identifier: Apache-2.0
// daemon idiom in a threaded program: close_range(3..), then open files; are they still open afterwards?
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <fcntl.h>
#include <time.h>
#include <sys/syscall.h>
static volatile int stop;
static void*w(void*a){ void*volatile p=malloc(50); free(p); return 0; }
static void*maker(void*a){ while(!stop){ pthread_t t[4]; for(int i=0;i<4;i++) pthread_create(t+i,0,w,0); for(int i=0;i<4;i++) pthread_join(t[i],0);} return 0;}
int main(int c,char**v){ pthread_t m,m2; pthread_create(&m,0,maker,0); pthread_create(&m2,0,maker,0); long n=0,lost=0; time_t e=time(0)+atoi(v[1]);
 while(time(0)<e) for(int k=0;k<100;k++){ syscall(SYS_close_range,3,~0u,0); int f=open("/dev/null",O_RDONLY), g=open("/dev/null",O_RDONLY); for(volatile int i=0;i<3000;i++); n++; if(fcntl(f,F_GETFD)<0||fcntl(g,F_GETFD)<0) lost++; }
 stop=1; pthread_join(m,0); pthread_join(m2,0); fprintf(stderr,"rounds %ld, own file closed by somebody else %ld\n",n,lost); return lost>0; }
