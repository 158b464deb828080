// SPDX-License-Identifier: Apache-2.0
#include <stdlib.h>
#include <string.h>
int main(){ for(;;){ char*volatile p=malloc(30000); memset(p,1,30000); for(int i=0;i<100;i++) { char*volatile q=malloc(40); q[0]=1; } } }
