// SPDX-License-Identifier: Apache-2.0
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int main(int c,char**v){ for(int t=0;t<40;t++){ for(int i=0;i<10;i++){char*p=malloc(1000);p[0]=1;asm volatile(""::"r"(p):"memory");} usleep(50000);} puts("idle");fflush(stdout); sleep(20); return 0;}
