// SPDX-License-Identifier: Apache-2.0
// no signal handlers: which calls report EINTR (or wrong result) after a scan?
#define _GNU_SOURCE
#include <sys/epoll.h>
#include <sys/sem.h>
#include <sys/msg.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <sys/un.h>
#include <poll.h>
#include <mqueue.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <errno.h>
#include <unistd.h>
#include <sys/syscall.h>
#include <linux/futex.h>
#include <fcntl.h>
static double now(){struct timespec t;clock_gettime(CLOCK_MONOTONIC,&t);return t.tv_sec+t.tv_nsec/1e9;}
static int dur=6;
static void *go(void*a){ long k=(long)a; double t=now(); long r=0; int e=0; const char*n="";
 struct timespec ts={dur,0};
 errno=0;
 switch(k){
 case 0: n="nanosleep"; r=nanosleep(&ts,0); break;
 case 1: n="epoll_wait timeout"; { int f=epoll_create1(0); struct epoll_event ev; r=epoll_wait(f,&ev,1,dur*1000);} break;
 case 2: n="poll timeout"; r=poll(0,0,dur*1000); break;
 case 3: n="select timeout"; { struct timeval tv={dur,0}; r=select(0,0,0,0,&tv);} break;
 case 4: n="semtimedop"; { int s=semget(IPC_PRIVATE,1,0600); struct sembuf b={0,-1,0}; r=semtimedop(s,&b,1,&ts); e=errno; semctl(s,0,IPC_RMID); errno=e;} break;
 case 5: n="sigtimedwait"; { sigset_t s; sigemptyset(&s); sigaddset(&s,SIGUSR1); r=sigtimedwait(&s,0,&ts);} break;
 case 6: n="inotify read (SIGALRM none)"; { int f=inotify_init1(0); struct pollfd p={f,POLLIN,0}; (void)p; char b[100]; int fl=0; (void)fl; 
    /* woken by a file creation at the end */ inotify_add_watch(f,"ino",IN_CREATE); r=read(f,b,sizeof b);} break;
 case 7: n="msgrcv"; { int q=msgget(IPC_PRIVATE,0600); struct {long t; char c[8];} m; /* removed by helper */ extern int gq; gq=q; r=msgrcv(q,&m,8,0,0);} break;
 case 8: n="recv SO_RCVTIMEO"; { int sv[2]; socketpair(AF_UNIX,SOCK_STREAM,0,sv); struct timeval tv={dur,0}; setsockopt(sv[0],SOL_SOCKET,SO_RCVTIMEO,&tv,sizeof tv); char b; r=recv(sv[0],&b,1,0);} break;
 case 9: n="accept SO_RCVTIMEO"; { int s=socket(AF_UNIX,SOCK_STREAM,0); struct sockaddr_un a={AF_UNIX,"acc.sock"}; unlink(a.sun_path); bind(s,(void*)&a,sizeof a); listen(s,1); struct timeval tv={dur,0}; setsockopt(s,SOL_SOCKET,SO_RCVTIMEO,&tv,sizeof tv); r=accept(s,0,0);} break;
 case 10: n="sem_timedwait"; { sem_t s; sem_init(&s,0,0); struct timespec w; clock_gettime(CLOCK_REALTIME,&w); w.tv_sec+=dur; r=sem_timedwait(&s,&w);} break;
 case 11: n="futex raw wait"; { static int f; r=syscall(SYS_futex,&f,FUTEX_WAIT,0,&ts,0,0);} break;
 case 12: n="cond_timedwait"; { static pthread_mutex_t m=PTHREAD_MUTEX_INITIALIZER; static pthread_cond_t c=PTHREAD_COND_INITIALIZER; struct timespec w; clock_gettime(CLOCK_REALTIME,&w); w.tv_sec+=dur; pthread_mutex_lock(&m); r=pthread_cond_timedwait(&c,&m,&w);} break;
 case 13: n="pipe read"; { extern int pp[2]; char b; r=read(pp[0],&b,1);} break;
 case 14: n="ppoll"; r=ppoll(0,0,&ts,0); break;
 case 15: n="epoll_pwait2/inf on timerfd"; { int f=epoll_create1(0),t=timerfd_create(CLOCK_MONOTONIC,0); struct itimerspec i={{0},{dur,0}}; timerfd_settime(t,0,&i,0); struct epoll_event ev={EPOLLIN}; epoll_ctl(f,EPOLL_CTL_ADD,t,&ev); r=epoll_wait(f,&ev,1,-1);} break;
 case 16: n="mq_timedreceive"; { struct mq_attr at={0,4,16,0}; mqd_t q=mq_open("/advq",O_CREAT|O_RDWR,0600,&at); char b[16]; struct timespec w; clock_gettime(CLOCK_REALTIME,&w); w.tv_sec+=dur; r=mq_timedreceive(q,b,16,0,&w); e=errno; mq_unlink("/advq"); errno=e;} break;
 case 17: n="waitpid child"; { pid_t p=fork(); if(!p){sleep(dur);_exit(7);} int st; r=waitpid(p,&st,0); r=r==p&&WEXITSTATUS(st)==7?0:-1;} break;
 case 18: n="clock_nanosleep abs"; { struct timespec w; clock_gettime(CLOCK_MONOTONIC,&w); w.tv_sec+=dur; r=clock_nanosleep(CLOCK_MONOTONIC,TIMER_ABSTIME,&w,0);} break;
 case 19: n="connect/io flock"; { int f=open("lk",O_CREAT|O_RDWR,0600); (void)f; r=0; sleep(dur);} break;
 }
 e=errno; printf("%-28s r=%ld errno=%d(%s) after %.1f s%s\n",n,r,r<0?e:0,r<0?strerror(e):"",now()-t, now()-t<dur-0.3?"  EARLY":""); fflush(stdout); return 0; }
int gq,pp[2];
int main(){ mkdir("ino",0700); unlink("ino/x"); pipe(pp); pthread_t t[20]; setvbuf(stdout,0,_IOLBF,0); printf("%d\n",getpid()); fflush(stdout);
 for(long i=0;i<20;i++) pthread_create(t+i,0,go,(void*)i);
 sleep(dur); msgctl(gq,IPC_RMID,0); close(open("ino/x",O_CREAT|O_RDWR,0600)); write(pp[1],"x",1);
 for(int i=0;i<20;i++) pthread_join(t[i],0); }
