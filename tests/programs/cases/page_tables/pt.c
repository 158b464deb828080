// SPDX-License-Identifier: Apache-2.0
/* one process with large page tables: reads (never writes) 2000 GiB of untouched memory, one byte per 2 MiB */
#include <sys/mman.h>
#include <unistd.h>
#include <stddef.h>
int main(void){ size_t n=2000UL<<30; volatile char*p=mmap(0,n,PROT_READ|PROT_WRITE,MAP_PRIVATE|MAP_ANONYMOUS|MAP_NORESERVE,-1,0); madvise((void*)p,n,MADV_NOHUGEPAGE); for(size_t i=0;i<n;i+=2UL<<20) (void)p[i]; pause(); }
