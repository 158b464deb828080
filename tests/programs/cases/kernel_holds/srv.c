// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
/* An event loop whose connection objects are known to the kernel only: epoll_event.data.ptr, and a timer's sival_ptr. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
struct connection { int fd, hits; char buffer[500]; };
static int ep;
static int peers[50];
__attribute__((noinline)) static void accept_one(int i) {
  int pair[2]; socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
  struct connection *c = calloc(1, sizeof *c);           /* CONNECTION */
  c->fd = pair[0]; peers[i] = pair[1];
  struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
  epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &ev);
  memset(&ev, 0, sizeof ev);
}
static void tick(int n, siginfo_t *i, void *x) { (void)n; (void)x; ++*(int *)i->si_value.sival_ptr; }
__attribute__((noinline)) static void timer(void) {
  struct sigaction a = {.sa_sigaction = tick, .sa_flags = SA_SIGINFO}; sigaction(SIGRTMIN, &a, NULL);
  int *counter = calloc(1, 300);                          /* COUNTER */
  struct sigevent e = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN, .sigev_value.sival_ptr = counter};
  timer_t t; timer_create(CLOCK_MONOTONIC, &e, &t);
  struct itimerspec s = {{0, 20000000}, {0, 20000000}}; timer_settime(t, 0, &s, NULL);
  memset(&e, 0, sizeof e);
}
__attribute__((noinline)) static void serve(int rounds) {
  for (int r = 0; r < rounds; r++) {
    write(peers[r % 50], "x", 1);
    struct epoll_event evs[1];
    if (epoll_wait(ep, evs, 1, 50) == 1) { struct connection *c = evs[0].data.ptr; c->hits++; read(c->fd, c->buffer, 500); }
    memset(evs, 0, sizeof evs);
    struct timespec t = {0, 5000000}; nanosleep(&t, NULL);
  }
}
__attribute__((noinline)) static void wipe(void) { volatile char b[4096]; memset((void *)b, 0, sizeof b); }
int main(int argc, char **argv) {
  ep = epoll_create1(0);
  for (int i = 0; i < 50; i++) accept_one(i);
  timer(); wipe();
  char *p = malloc(888); *p = 1; p = NULL;                /* the one real leak */
  serve(argc > 1 ? atoi(argv[1]) : 100);
  puts("srv done");
  return 0;
}
