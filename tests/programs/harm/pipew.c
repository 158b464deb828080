// SPDX-License-Identifier: Apache-2.0
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <errno.h>
#include <string.h>
#include <signal.h>
#include <sys/socket.h>
int main(){ void*k=malloc(10); int s[2]; socketpair(AF_UNIX,SOCK_STREAM,0,s); close(s[1]); int r=write(s[0],"x",1); printf("write %d %s; served on %d\n",r,r<0?strerror(errno):"",k!=0); return 0;}
