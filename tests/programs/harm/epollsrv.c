// SPDX-License-Identifier: Apache-2.0
// ordinary epoll server idiom: epoll data.ptr -> heap conn; close(fd) auto-removes from epoll; free(conn).
#define _GNU_SOURCE
#include <sys/epoll.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <errno.h>
#define MAGIC 0x434f4e4e
struct conn { int magic, fd; char pad[200]; };
int main(int c,char**v){
  size_t mb = c>1?atoi(v[1]):0;
  for(size_t i=0;i<mb*4096;i++){ char**p=malloc(240); static char**last; *p=(char*)last; last=p; memset(p+1,i,200);}   // live heap
  int l=socket(AF_INET,SOCK_STREAM,0),one=1; setsockopt(l,SOL_SOCKET,SO_REUSEADDR,&one,sizeof one);
  struct sockaddr_in a={AF_INET,htons(7799),{htonl(INADDR_LOOPBACK)}}; if(bind(l,(void*)&a,sizeof a)){perror("bind");return 9;} listen(l,128);
  int e=epoll_create1(0); struct epoll_event ev={EPOLLIN,{.ptr=NULL}}; epoll_ctl(e,EPOLL_CTL_ADD,l,&ev);
  printf("ready %d\n",getpid()); fflush(stdout);
  long stale=0,eintr=0;
  for(;;){ struct epoll_event evs[64]; int n=epoll_wait(e,evs,64,-1);
    if(n<0){ if(errno==EINTR){eintr++; fprintf(stderr,"epoll_wait EINTR #%ld (no handlers installed)\n",eintr); continue;} perror("epoll_wait"); return 3; }
    for(int i=0;i<n;i++){ struct conn*cn=evs[i].data.ptr;
      if(!cn){ int f=accept(l,0,0); cn=malloc(sizeof*cn); cn->magic=MAGIC; cn->fd=f; struct epoll_event x={EPOLLIN,{.ptr=cn}}; epoll_ctl(e,EPOLL_CTL_ADD,f,&x); continue; }
      if(cn->magic!=MAGIC){ stale++; if(stale==1) fprintf(stderr,"USE AFTER FREE: event %x for freed connection %p magic %x\n",evs[i].events,(void*)cn,cn->magic); if(stale==100000) {fprintf(stderr,"100000 stale events\n"); abort();} continue; }
      char b[512]; int r=read(cn->fd,b,sizeof b);
      if(r>0){ write(cn->fd,"HTTP/1.0 200 OK\r\n\r\nhi\n",23);} 
      close(cn->fd); cn->magic=0; free(cn);
    } } }
