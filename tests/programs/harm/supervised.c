/* SPDX-License-Identifier: Apache-2.0 */
/* A program whose getppid() a supervisor answers (SECCOMP_RET_USER_NOTIF): with how often it was
 * asked. Each question must be asked once. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t ended;
static void end(int number) { ended = 1; }

union letter {
  char bytes[CMSG_SPACE(sizeof(int))];
  struct cmsghdr head;
};

static void send_descriptor(int to, int fd) {
  union letter letter = {{0}};
  struct iovec one = {"x", 1};
  struct msghdr message = {.msg_iov = &one, .msg_iovlen = 1, .msg_control = &letter, .msg_controllen = sizeof letter};
  letter.head = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
  memcpy(CMSG_DATA(&letter.head), &fd, sizeof fd);
  sendmsg(to, &message, 0);
}

static int receive_descriptor(int from) {
  union letter letter;
  char byte;
  int fd = -1;
  struct iovec one = {&byte, 1};
  struct msghdr message = {.msg_iov = &one, .msg_iovlen = 1, .msg_control = &letter, .msg_controllen = sizeof letter};
  recvmsg(from, &message, 0);
  memcpy(&fd, CMSG_DATA(&letter.head), sizeof fd);
  return fd;
}

static void supervise(int fd, int microseconds) {
  for (long asked = 1;; asked++) {
    struct seccomp_notif question = {0};
    if (ioctl(fd, SECCOMP_IOCTL_NOTIF_RECV, &question))
      _exit(0);
    usleep(microseconds);
    struct seccomp_notif_resp answer = {.id = question.id, .val = asked};
    if (ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, &answer))
      asked += 1000000; /* it was taken back */
  }
}

int main(int argc, char **argv) {
  int ends[2];
  socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
  pid_t supervisor = fork();
  if (!supervisor) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    supervise(receive_descriptor(ends[1]), argc > 1 ? atoi(argv[1]) : 30000);
  }
  struct sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog filter = {4, code};
  signal(SIGUSR1, end);
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  int fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &filter);
  send_descriptor(ends[0], fd);
  close(fd);
  puts("ready");
  fflush(stdout);
  long wrong = 0, last = 0;
  while (!ended) {
    long answer = syscall(SYS_getppid);
    wrong += answer != last + 1 && !ended;
    last = answer;
    usleep(20000);
  }
  printf("%ld wrong\n", wrong);
  return 7;
}
