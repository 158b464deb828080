// SPDX-License-Identifier: Apache-2.0
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <time.h>
int main(int c,char**v){ size_t mb=atoi(v[1]); size_t n=mb*4; char**b=malloc(n*sizeof*b); for(size_t i=0;i<n;i++){b[i]=malloc(256*1024-64); memset(b[i],1,256*1024-64);} 
 printf("ready %d\n",getpid()); fflush(stdout); time_t e=time(0)+atoi(v[2]); unsigned k=0; while(time(0)<e){ k++; for(size_t i=0;i<n;i++){ memset(b[i],k,256*1024-64);} usleep(1000);} printf("done\n"); }
