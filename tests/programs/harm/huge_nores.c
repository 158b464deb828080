// SPDX-License-Identifier: Apache-2.0
// hugetlb private NORESERVE: filled, then written in a loop
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
int main(int c,char**v){ int n=atoi(v[1]); int secs=atoi(v[2]); size_t H=2<<20;
 char*p=mmap(0,n*H,PROT_READ|PROT_WRITE,MAP_PRIVATE|MAP_ANONYMOUS|MAP_HUGETLB|(c>3?0:MAP_NORESERVE),-1,0);
 if(p==MAP_FAILED){perror("mmap");return 3;}
 void**keep=malloc(100*sizeof(void*)); for(int i=0;i<100;i++)keep[i]=malloc(1000);
 for(int i=0;i<n;i++)memset(p+i*H,1,H);
 puts("ready");fflush(stdout);
 for(int t=0;t<secs*1000;t++){ for(int i=0;i<n;i++)p[i*H+t]++; usleep(1000);} puts("done"); printf("%p\n",(void*)keep[3]); return 0;}
