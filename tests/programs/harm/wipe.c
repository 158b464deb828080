// SPDX-License-Identifier: Apache-2.0
// pointers kept in memory that is wiped / not forked; nothing is lost
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif
int main(int c,char**v){ int adv=!strcmp(v[1],"wipe")?MADV_WIPEONFORK:!strcmp(v[1],"dont")?MADV_DONTFORK:MADV_NORMAL;
 void**k=mmap(0,1<<20,3,MAP_PRIVATE|MAP_ANONYMOUS,-1,0); if(madvise(k,1<<20,adv))perror("madvise");
 for(int i=0;i<1000;i++)k[i]=malloc(500);
 puts("ready");fflush(stdout); sleep(atoi(v[2])); long s=0; for(int i=0;i<1000;i++){s+=((char*)k[i])[3];} printf("done %ld\n",s); return 0;}
