// SPDX-License-Identifier: Apache-2.0
// userfaultfd with EVENT_FORK, monitor thread in the same process
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/ioctl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <poll.h>
#include <unistd.h>
#include <fcntl.h>
static int fd; static char*zero;
static void*mon(void*a){ for(;;){ struct pollfd p={fd,POLLIN,0}; poll(&p,1,-1); struct uffd_msg m; if(read(fd,&m,sizeof m)!=sizeof m)continue;
 if(m.event==UFFD_EVENT_PAGEFAULT){ struct uffdio_copy c={.dst=m.arg.pagefault.address&~4095ull,.src=(unsigned long)zero,.len=4096}; ioctl(fd,UFFDIO_COPY,&c);} else if(m.event==UFFD_EVENT_FORK){ fprintf(stderr,"monitor saw a fork\n"); close(m.arg.fork.ufd);} } }
int main(int c,char**v){ int secs=atoi(v[1]); int ev=c>2; fd=syscall(SYS_userfaultfd,O_CLOEXEC|O_NONBLOCK); if(fd<0){perror("uffd");return 3;}
 struct uffdio_api api={.api=UFFD_API,.features=ev?UFFD_FEATURE_EVENT_FORK:0}; if(ioctl(fd,UFFDIO_API,&api)){perror("api");return 3;}
 zero=mmap(0,4096,3,MAP_PRIVATE|MAP_ANONYMOUS,-1,0); memset(zero,7,4096);
 size_t L=64<<20; char*p=mmap(0,L,3,MAP_PRIVATE|MAP_ANONYMOUS,-1,0); struct uffdio_register r={.range={(unsigned long)p,L},.mode=UFFDIO_REGISTER_MODE_MISSING};
 if(ioctl(fd,UFFDIO_REGISTER,&r)){perror("reg");return 3;}
 pthread_t t; pthread_create(&t,0,mon,0);
 void**keep=malloc(100*sizeof(void*)); for(int i=0;i<100;i++)keep[i]=malloc(1000);
 puts("ready");fflush(stdout); long s=0; for(int i=0;i<secs*1000;i++){ s+=p[(size_t)(i%1000)*16384]; usleep(1000);} printf("done %ld %p\n",s,(void*)keep[3]); return 0;}
