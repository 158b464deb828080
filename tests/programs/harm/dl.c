// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <dlfcn.h>
#include <time.h>
static double now(){struct timespec t;clock_gettime(CLOCK_MONOTONIC,&t);return t.tv_sec+t.tv_nsec/1e9;}
int main(int c,char**v){ int n=atoi(v[1]), rep=atoi(v[2]); int dis=c>3; char nm[100]; double t0=now(); long calls=0;
 for(int r=0;r<rep;r++) for(int i=0;i<n;i++){ snprintf(nm,100,"./so/f%d.so",i); void*h=dlopen(nm,RTLD_NOW); if(!h){puts(dlerror());return 1;} void*(*f)(int)=(void*(*)(int))dlsym(h,"f"); f(3); calls+=3; if(dis)dlclose(h);} 
 fprintf(stderr,"%ld leaks, %.2fs\n",calls,now()-t0); return 0;}
