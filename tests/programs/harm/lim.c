// SPDX-License-Identifier: Apache-2.0
// locks its memory in ways that no wrapper sees, or looks at its size after forks and growth
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static long status(const char *name) {
  FILE *f = fopen("/proc/self/status", "r");
  char line[200];
  long value = -1;
  while (fgets(line, sizeof line, f))
    if (!strncmp(line, name, strlen(name)))
      sscanf(line + strlen(name) + 1, "%ld", &value);
  fclose(f);
  return value;
}
static void *touch(void *a) { return memset(malloc(1000), 1, 1000); }
static void use(int blocks) {
  int got = 0;
  for (int i = 0; i < blocks; i++)
    got += malloc(100) != NULL;
  pthread_t t;
  pthread_attr_t small;
  pthread_attr_init(&small);
  pthread_attr_setstacksize(&small, 64 << 10);
  int rc = pthread_create(&t, &small, touch, 0);
  if (!rc)
    pthread_join(t, 0);
  printf("blocks %d thread %d\n", got, rc);
}
static void deeper(int left) { /* each generation records anew */
  free(malloc(10));
  if (!left) {
    fprintf(stderr, "VmSize: %ld\n", status("VmSize"));
    exit(0);
  }
  if (!fork())
    deeper(left - 1);
  int st;
  wait(&st);
  exit(st != 0);
}
int main(int c, char **v) {
  struct rlimit r = {16 << 20, 16 << 20};
  if (!strcmp(v[1], "gens"))
    deeper(8);
  if (strcmp(v[1], "grow")) {
    setrlimit(RLIMIT_MEMLOCK, &r);
    if (setgid(65534) || setuid(65534))
      perror("setuid");
    int flags = !strcmp(v[1], "onfault") ? MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT
                                         : MCL_CURRENT | MCL_FUTURE;
    long rc = syscall(SYS_mlockall, flags);
    printf("mlockall %ld %s\n", rc, rc ? strerror(errno) : "");
  }
  use(!strcmp(v[1], "grow") ? atoi(v[2]) : 20000);
  fflush(stdout);
  fprintf(stderr, "VmSize: %ld\n", status("VmSize"));
  return 0;
}
