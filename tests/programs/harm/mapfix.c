// SPDX-License-Identifier: Apache-2.0
// unmaps / protects / replaces mappings it does not know (a loader or checkpointer cleaning its address space)
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>
int main(int c,char**v){ char l[600]; unsigned long s[4000],e[4000]; int n=0; FILE*f=fopen("/proc/self/maps","r"); while(fgets(l,600,f)){ unsigned long a,b; char pe[8]; char pt[300]=""; sscanf(l,"%lx-%lx %7s %*s %*s %*s %299s",&a,&b,pe,pt); if(strstr(pt,"libc")||strstr(pt,"ld-")||strstr(pt,"mapfix")||strstr(pt,"[")||strstr(pt,"vdso")||strstr(pt,"libleak")) continue; if(!pt[0]&&a>0x7f0000000000&&!(c>2)) continue; s[n]=a;e[n++]=b;} fclose(f);
 printf("unknown mappings %s\n",n>=0?"handled":""); fflush(stdout); for(int i=0;i<n;i++){ if(!strcmp(v[1],"unmap")) munmap((void*)s[i],e[i]-s[i]); else if(!strcmp(v[1],"prot")) mprotect((void*)s[i],e[i]-s[i],PROT_READ); else mmap((void*)s[i],4096,PROT_READ|PROT_WRITE,MAP_PRIVATE|MAP_ANONYMOUS|MAP_FIXED,-1,0);} 
 for(int i=0;i<1000;i++){ char*p=malloc(1000); p[0]=1; free(p);} printf("alive\n"); return 0;}
