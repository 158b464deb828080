// SPDX-License-Identifier: Apache-2.0
// allocates and keeps for N seconds; leaks 100 blocks each 10 ms
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(int c,char**v){ int n=atoi(v[1]); long k=0; for(int t=0;t<n*20;t++){ for(int i=0;i<10;i++){char*p=malloc(1000);p[0]=1;k++; asm volatile(""::"r"(p):"memory");} usleep(50000);} printf("%s pid %d allocated %ld\n",v[2],getpid(),k); return 0;}
