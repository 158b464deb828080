# SPDX-License-Identifier: Apache-2.0
"""A process to be taken into one's hands: two threads that count, one that sleeps."""

import os
import subprocess
from dataclasses import dataclass

import pytest

PROGRAM = r"""
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
static volatile unsigned long counters[2];
static char text[] = "what is in its memory";
static void *count(void *counter) { for (;;) ++*(volatile unsigned long *)counter; }
int main(void) {
  pthread_t threads[2];
  for (int i = 0; i < 2; i++) pthread_create(&threads[i], 0, count, (void *)&counters[i]);
  printf("%p %p\n", (void *)counters, (void *)text);
  fflush(stdout);
  char byte;
  if (read(0, &byte, 1) != 1) return 1;
  strcpy(text, "something else");
  printf("went on\n");
  return 0;
}
"""


@dataclass
class Program:
    """A running program, and where its counters and its text are."""

    process: subprocess.Popen[str]
    counters: int
    text: int

    @property
    def pid(self) -> int:
        return self.process.pid

    def count(self) -> bytes:
        """What its counters are now, read past whatever holds it."""
        with open(f"/proc/{self.pid}/mem", "rb", buffering=0) as memory:
            return os.pread(memory.fileno(), 16, self.counters)

    def ends_well(self) -> bool:
        """Let it go on to its end; whether it does what it would have done."""
        told, _ = self.process.communicate("x", timeout=60)
        return told == "went on\n" and self.process.returncode == 0


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """The program's file."""
    folder = tmp_path_factory.mktemp("target")
    (folder / "counts.c").write_text(PROGRAM)
    subprocess.run(["gcc", "-O1", "-pthread", "-o", "counts", "counts.c"], cwd=folder, check=True)
    return folder / "counts"


@pytest.fixture
def program(built):
    """It runs, and is gone behind the test."""
    process = subprocess.Popen([built], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        counters, text = process.stdout.readline().split()
        yield Program(process, int(counters, 16), int(text, 16))
    finally:
        process.kill()
        process.communicate()
