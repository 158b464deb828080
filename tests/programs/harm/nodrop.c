// SPDX-License-Identifier: Apache-2.0
// root: setuid to nobody, then fork, allocate, exec
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <grp.h>
#include <sys/wait.h>
#include <errno.h>
static void work(const char*who){ for(int i=0;i<1000;i++){ char*p=malloc(777); p[0]=1; asm volatile(""::"r"(p):"memory"); } printf("%s uid %d done\n",who,getuid()); fflush(stdout);} 
int main(int c,char**v){ if(c>1&&!strcmp(v[1],"exec")){work("exec'd");return 5;}
 work("root"); setgroups(0,0);  work("dropped");
 pid_t p=fork(); if(!p){work("child"); _exit(4);} int st; waitpid(p,&st,0); printf("child %x\n",st);fflush(stdout);
 p=fork(); if(!p){execl("./nodrop","drop","exec",NULL); perror("exec"); _exit(9);} waitpid(p,&st,0); printf("exec %x\n",st); return 0;}
