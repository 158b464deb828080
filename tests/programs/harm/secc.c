// SPDX-License-Identifier: Apache-2.0
// sandbox as libseccomp users do: allow what the program needs, kill the rest
#include <stddef.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/audit.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <pthread.h>
static int allow[]={SYS_read,SYS_rt_sigaction,SYS_prlimit64,SYS_sysinfo,SYS_sched_getaffinity,SYS_openat,SYS_arch_prctl,SYS_set_tid_address,SYS_write,SYS_close,SYS_fstat,SYS_newfstatat,SYS_lseek,SYS_mmap,SYS_munmap,SYS_mprotect,SYS_mremap,SYS_brk,SYS_madvise,SYS_futex,SYS_rt_sigreturn,SYS_rt_sigprocmask,SYS_exit,SYS_exit_group,SYS_clock_gettime,SYS_getpid,SYS_gettid,SYS_sched_yield,SYS_getrandom,SYS_clone,SYS_clone3,SYS_set_robust_list,SYS_rseq,SYS_nanosleep,SYS_clock_nanosleep};
#define N (sizeof allow/sizeof*allow)
static void*th(void*a){ for(int i=0;i<20000;i++){ void*p=malloc(i%500+1); free(p);} return malloc(10);}
static __attribute__((noinline)) void*deep(int n,int s){ volatile char x[16]; x[0]=n; if(n) return deep(n-1,s); return malloc(s);} 
int main(int c,char**v){ int mode=atoi(v[1]);
 void*keep=malloc(10); if(mode==9){void*a=malloc(100000);void*b=malloc(100);free(a);(void)b;}
 if(mode==9){ prctl(PR_SET_SECCOMP,1); }
 else { struct sock_filter f[N+8]; int k=0; f[k++]=(struct sock_filter)BPF_STMT(BPF_LD|BPF_W|BPF_ABS,offsetof(struct seccomp_data,nr));
 for(size_t i=0;i<N;i++) f[k++]=(struct sock_filter)BPF_JUMP(BPF_JMP|BPF_JEQ|BPF_K,allow[i],N-i,0);
 f[k++]=(struct sock_filter)BPF_STMT(BPF_RET|BPF_K,mode>=5?SECCOMP_RET_ERRNO|1:SECCOMP_RET_KILL_PROCESS); f[k++]=(struct sock_filter)BPF_STMT(BPF_RET|BPF_K,SECCOMP_RET_ALLOW);
 struct sock_fprog p={k,f}; prctl(PR_SET_NO_NEW_PRIVS,1,0,0,0); if(prctl(PR_SET_SECCOMP,2,&p)){perror("seccomp");return 9;} }
 int m=mode%5; if(mode==9) m=0;
 void*q[1000]; for(int i=0;i<1000;i++) q[i]=deep(i%40,20+i); for(int i=0;i<1000;i++) free(q[i]);
 if(m>=1){ pthread_t t[4]; for(int i=0;i<4;i++) pthread_create(t+i,0,th,0); for(int i=0;i<4;i++) pthread_join(t[i],0);} 
 write(1,"ok\n",3);
 if(m==2||mode==9) syscall(SYS_exit,5); 
 if(m==3) abort();
 return 3; }
