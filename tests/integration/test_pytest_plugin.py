# SPDX-License-Identifier: Apache-2.0
"""`pytest --leakscope` on tests of an extension module that leaks, and of one that does not."""

import os
import re
import subprocess
import sys
import sysconfig

import pytest

pytestmark = pytest.mark.timeout(400)  # suites within a test, on machines with other work
EXTENSION = r"""
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdlib.h>
static void *cache[2];
static int used;
static __attribute__((noinline)) void lose(int n) {
  for (int i = 0; i < n; i++) { volatile char *p = malloc(100); p[0] = 1; }
}
static PyObject *py_leak(PyObject *self, PyObject *args) { lose(2); Py_RETURN_NONE; }
static PyObject *py_big(PyObject *self, PyObject *args) {
  volatile char *p = malloc(8 << 20); p[0] = 1; Py_RETURN_NONE;
}
static PyObject *py_fine(PyObject *self, PyObject *args) { free(malloc(1000)); Py_RETURN_NONE; }
static PyObject *py_cached(PyObject *self, PyObject *args) {
  if (used < 2) cache[used++] = malloc(500);
  Py_RETURN_NONE;
}
static PyObject *py_pymem(PyObject *self, PyObject *args) {
  volatile char *p = PyMem_Malloc(3000); p[0] = 1; Py_RETURN_NONE;
}
static void drop(PyObject *capsule) { free(PyCapsule_GetPointer(capsule, NULL)); }
static PyObject *py_owned(PyObject *self, PyObject *args) {
  return PyCapsule_New(malloc(700), NULL, drop);
}
static PyObject *py_held(PyObject *self, PyObject *args) {
  return PyCapsule_New(malloc(900), NULL, drop);
}
static PyMethodDef methods[] = {
  {"leak", py_leak, METH_NOARGS, ""},     {"big", py_big, METH_NOARGS, ""},
  {"fine", py_fine, METH_NOARGS, ""},     {"cached", py_cached, METH_NOARGS, ""},
  {"pymem", py_pymem, METH_NOARGS, ""},   {"owned", py_owned, METH_NOARGS, ""},
  {"held", py_held, METH_NOARGS, ""},     {0}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "leaky", 0, -1, methods};
PyMODINIT_FUNC PyInit_leaky(void) { return PyModule_Create(&module); }
"""
TESTS = """
import ctypes, unittest
import pytest
import leaky
kept, once = [], []
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p

def test_fine(): leaky.fine()
def test_cached(): leaky.cached()
def test_python_keeps(tmp_path):
    (tmp_path / "a").write_text("a" * 100000)
    kept.append(bytearray(100000))
    kept.append("x" * 3000)
def test_cycles():
    one = [leaky.owned()]
    one.append(one)
@pytest.fixture(scope="module")  # freed after the last test, in whichever worker that is
def shared(): return leaky.held()
def test_of_a_fixture(shared): assert shared
@pytest.mark.leakscope(ignore=True)
def test_ignored(): leaky.leak()
def test_skipped(): pytest.skip("no")
@pytest.mark.xfail
def test_xfail(): leaky.leak(); assert 0

def test_leak(): leaky.leak()
def test_pymem(): leaky.pymem()
def test_ctypes(): libc.malloc(5000)
class TestOld(unittest.TestCase):
    def setUp(self): self.it = leaky.owned()
    def test_clean(self): leaky.fine()
    def test_leaks(self): leaky.leak()
def test_keeps_natively(): kept.append(leaky.owned())
def test_fails(): leaky.leak(); assert 0
def test_not_repeatable(): leaky.leak(); once.append(1); assert len(once) == 1
"""
LEAKS = {"test_leak", "test_pymem", "test_ctypes", "test_leaks", "test_keeps_natively"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("suite")
    (folder / "leaky.c").write_text(EXTENSION)
    (folder / "test_it.py").write_text(TESTS)
    include = sysconfig.get_paths()["include"]
    command = ["gcc", "-g", "-O1", "-shared", "-fPIC", f"-I{include}", "-o", "leaky.so", "leaky.c"]
    subprocess.run(command, cwd=folder, check=True)
    return folder


@pytest.fixture
def suite(folder, agent):
    def run(*options, command=(sys.executable, "-m", "pytest"), **environment):
        done = subprocess.run(
            [*command, "-p", "no:cacheprovider", "-rA", "-W", "ignore", *options],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=380,
            env=os.environ | {"CI": ""} | environment,
        )
        done.failed = set(re.findall(r"^FAILED \S*?::(?:\w+::)?(\w+)", done.stdout, re.MULTILINE))
        done.proofs = re.findall(r"leakscope: recording pid (\d+), (\w+)", done.stdout)
        return done

    return run


def test_tests_that_leak_fail_with_the_stack_and_no_others(suite):
    done = suite("--leakscope")
    assert done.failed == LEAKS | {"test_fails"}, done.stdout
    assert [how for _, how in done.proofs] == ["exact"]
    text = done.stdout.partition("FAILURES")[2]
    assert "200 B in 2 blocks more in each run" in text
    assert re.search(r"#0 +lose +\S*leaky\.c:8", text)
    assert re.search(r"#\d +py_leak +\S*leaky\.c:10", text)
    assert "PyEval" not in text.partition("test_fails")[0]
    assert (
        "test_not_repeatable grew in native code, and did not pass when it was run" in done.stdout
    )
    assert done.returncode == 1


def test_without_the_option_nothing_happens(suite):
    done = suite("-k", "leak or fine")
    assert (done.returncode, done.proofs) == (0, [])
    loaded = "import sys, pytest; pytest.main(['--co', '-q', '-k', 'nothing']); print([m for m in sys.modules if m.startswith('leakscope.') and m != 'leakscope.pytest_plugin'])"
    found = suite(command=(sys.executable, "-c", loaded))
    assert "[]" in found.stdout.splitlines()


def test_workers_of_xdist_find_the_same(suite):
    done = suite("--leakscope", "-n", "2")
    assert done.failed == LEAKS | {"test_fails"}, done.stdout


def test_samples_find_what_is_large(suite, folder):
    (folder / "test_big.py").write_text(
        "import leaky\ndef test_big(): leaky.big()\ndef test_ok(): leaky.fine()\n"
    )
    done = suite("--leakscope", "--leakscope-sample", "256KiB", "test_big.py")
    assert done.failed == {"test_big"}, done.stdout
    assert [how for _, how in done.proofs] == ["sampled"]


def test_it_can_be_set_in_a_file_and_run_by_leakscope(suite, folder, tmp_path):
    command = (sys.executable, "-m", "leakscope", "run", "--no-scan", "--no-report", "-o")
    command += (f"{tmp_path}/", "--", sys.executable, "-m", "pytest")
    done = suite("-o", "addopts=--leakscope", "-k", "test_leak or test_fine", command=command)
    assert done.failed == {"test_leak"} | (LEAKS & {"test_leaks"}), done.stdout + done.stderr
    direct = suite("-o", "addopts=--leakscope", "-k", "test_leak or test_fine")
    assert direct.failed == done.failed


def test_a_program_that_calls_pytest_is_told_how(suite):
    program = "import sys, pytest; sys.exit(pytest.main(['--leakscope', '-q']))"
    done = suite(command=(sys.executable, "-c", program))
    assert done.returncode == 4
    assert "leakscope run" in done.stderr


@pytest.mark.parametrize(
    ("option", "said"),
    [("--leakscope-sample=lots", "'lots' is not a size"), ("--leakscope-runs=1", "at least 2")],
)
def test_wrong_options_are_said(option, said, suite):
    done = suite("--leakscope", option)
    assert done.returncode == 4
    assert said in done.stderr
