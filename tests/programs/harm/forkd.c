// SPDX-License-Identifier: Apache-2.0
// a forking server: one short child a request, no exec
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/wait.h>
int main(int c,char**v){ for(int i=0;i<atoi(v[1]);i++){ pid_t p=fork(); if(!p){ void*volatile q=malloc(100); free(q); _exit(0);} waitpid(p,0,0); } puts("done"); fflush(stdout); sleep(atoi(v[2])); }
