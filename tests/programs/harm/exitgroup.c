// SPDX-License-Identifier: Apache-2.0
// ends by the bare system call while another thread waits
#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>
static void *waits(void *a) { pause(); return a; }
int main(void) {
  pthread_t t;
  free(malloc(10));
  pthread_create(&t, 0, waits, 0);
  syscall(SYS_exit_group, 17);
}
