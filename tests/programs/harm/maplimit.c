// SPDX-License-Identifier: Apache-2.0
// how many mappings can the program make, and does its memory stay right
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <errno.h>
#include <sys/mman.h>
#include <time.h>
static double now(){struct timespec t;clock_gettime(CLOCK_MONOTONIC,&t);return t.tv_sec+t.tv_nsec/1e9;}
int main(int c,char**v){ int want=atoi(v[1]); static void*m[70000]; int n=0; double t0=now();
 for(;n<want;n++){ m[n]=mmap(0,4096,n&1?PROT_READ:PROT_READ|PROT_WRITE,MAP_PRIVATE|MAP_ANONYMOUS,-1,0); if(m[n]==MAP_FAILED)break; }
 double t1=now(); fprintf(stderr,"made %d mappings (%s) %.2fs\n",n,n<want?strerror(errno):"as wanted",t1-t0);
 int bad=0; char**k=malloc(8*200000); for(int i=0;i<200000;i++){ k[i]=malloc(100+i%900); if(!k[i]){bad++;continue;} memset(k[i],i,100);} for(int i=0;i<200000;i++) if(k[i]){ if(k[i][50]!=(char)i)bad++; free(k[i]);} 
 double t2=now(); fprintf(stderr,"malloc %.2fs bad %d\n",t2-t1,bad);
 unsigned s=1; for(int i=n-1;i>0;i--){ s=s*1103515245+12345; int j=(s>>8)%(i+1); void*x=m[i];m[i]=m[j];m[j]=x;}
 for(int i=0;i<n;i++) if(munmap(m[i],4096)){fprintf(stderr,"munmap %d %s\n",i,strerror(errno));break;}
 fprintf(stderr,"munmap %.2fs\n",now()-t2); return 0;}
