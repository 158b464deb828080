// SPDX-License-Identifier: Apache-2.0
#include <stdlib.h>
#include <signal.h>
void f(void){ volatile char*p=malloc(1000); *p=1; }
int main(void){ for(int i=0;i<5000;i++) f(); raise(SIGKILL); }
