/* SPDX-License-Identifier: Apache-2.0 */
/* Forks children that allocate and end, some of which stay for a while, and starts programs by vfork.
 * Prints WRONG and ends when one of them does not end as it should. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void) {
  setvbuf(stdout, NULL, _IONBF, 0);
  for (int i = 0;; i++) {
    pid_t child = fork();
    if (!child) {
      for (int k = 0; k < 300; k++) {
        char *text = malloc(100 + k);
        memset(text, 1, 100 + k);
        free(text);
      }
      if (i % 50 == 7)
        sleep(2);
      _exit(3);
    }
    int status = 0;
    if (i % 50 != 7 && (waitpid(child, &status, 0) != child || status != 3 << 8)) {
      printf("WRONG %x\n", status);
      return 9;
    }
    if (!vfork()) {
      execl("/bin/true", "true", (char *)NULL);
      _exit(1);
    }
    while (waitpid(-1, &status, WNOHANG) > 0)
      if (status && status != 3 << 8) {
        printf("WRONG %x\n", status);
        return 9;
      }
    void *volatile block = malloc(10); /* not to be left out by the compiler */
    free(block);
    usleep(2000);
  }
}
