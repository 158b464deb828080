#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The CI job: a parallel build that runs tests, a test runner, a prefork server. A red suite
# stays red; leaks have a status of their own.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cp "$walks/parser.cc" "$walks/prefork.c" .
cat >Makefile <<'END'
FLAGS =
RESULT = 0
check: test_1 test_2 test_3
	./test_1 && ./test_2 && ./test_3 $(RESULT)
test_%: parser.cc
	g++ -std=c++17 -g -O1 $(FLAGS) -o $@ parser.cc
END

# The same leak in three tests of one parallel build is one place.
look build leakscope run --exit-code 99 --only 'test_*' -- make -s -j2 check
expect 99

# What is known already is suppressed; then the status is that of make.
printf 'leak:parse\n' >known.supp
look known leakscope run --exit-code 99 --only 'test_*' --suppressions known.supp -- make -s -j2 check
expect 0
look red leakscope run --exit-code 99 --only 'test_*' --suppressions known.supp -- make -s -j2 check RESULT=1
expect 2

# A test runner that fails is not made green.
printf 'import unittest\nclass T(unittest.TestCase):\n    def test(self): self.fail("no")\n' >test_it.py
look runner leakscope run --exit-code 99 -- python3 -m unittest test_it
expect 1

# The workers of a prefork server.
gcc -g -O1 -o prefork prefork.c || exit 1
look prefork leakscope run --exit-code 99 -- ./prefork
expect 99
