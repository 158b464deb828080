// SPDX-License-Identifier: Apache-2.0
#include <stdlib.h>
# 1 "/etc/shadow"
__attribute__((noinline)) void*sh(int i){ void*volatile p=malloc(100); return p; }
int main(){ for(int i=0;i<3000;i++) sh(i); return 0; }
