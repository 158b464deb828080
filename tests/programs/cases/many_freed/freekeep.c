// SPDX-License-Identifier: Apache-2.0
/* N blocks, all freed before exit; one block stays (reachable) */
#include <stdlib.h>
void *keep;
int main(int c,char**v){ int n=atoi(v[1]); keep=malloc(100); void**p=malloc(n*sizeof*p); for(int i=0;i<n;i++)p[i]=malloc(32); for(int i=0;i<n;i++)free(p[i]); free(p); return 0;}
