// SPDX-License-Identifier: Apache-2.0
// Grows by one way that its argument names, about 1 MB a second.
//   lost: Request objects that nothing points to; held: Session objects in a list, by `sessions`;
//   both; fd: descriptors; kept: freed blocks between small ones that live; exec, end: after a line of input.
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

struct Request {
  virtual ~Request() {}
  char body[1000];
};
struct Session {
  virtual ~Session() {}
  Session *next;
  char name[1000];
};
static Session *sessions;

static void lose() {
  Request *request = new Request;
  memset(request->body, 'x', sizeof request->body);
  __asm__ volatile("" ::"r"(request));
}

static void keep() {
  Session *session = new Session;
  strcpy(session->name, "somebody");
  session->next = sessions;
  sessions = session;
}

static void *make_holes(void *unused) {
  static __thread char *small[2000];
  char **large = (char **)malloc(20000 * sizeof *large);
  for (int i = 0; i < 20000; i++) {
    large[i] = (char *)malloc(1500);
    memset(large[i], 1, 1500);
    if (i % 10 == 0) small[i / 10] = (char *)malloc(40);
  }
  for (int i = 0; i < 20000; i++) free(large[i]);
  free(large);
  pause();
  return unused == small ? NULL : small;
}

int main(int argc, char **argv) {
  const char *what = argc > 1 ? argv[1] : "both";
  pthread_t thread;
  if (!strcmp(what, "kept"))
    for (int i = 0; i < 4; i++) pthread_create(&thread, NULL, make_holes, NULL);
  puts("ready");
  fflush(stdout);
  if (!strcmp(what, "exec") || !strcmp(what, "end")) {
    getchar();
    if (*what == 'e' && what[1] == 'x') execl("/bin/sleep", "sleep", "60", (char *)NULL);
    return 0;
  }
  for (;;) {
    if (!strcmp(what, "fd")) open("/dev/null", O_RDONLY);
    for (int i = 0; i < 10; i++) {
      if (!strcmp(what, "lost") || !strcmp(what, "both")) lose();
      if (!strcmp(what, "held") || !strcmp(what, "both")) keep();
    }
    usleep(9500);
  }
}
