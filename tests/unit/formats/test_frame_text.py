# SPDX-License-Identifier: Apache-2.0
"""Frames as tools write them: functions and paths that have blanks and brackets of their own."""

import shutil
import subprocess

import pytest

from foreign import findings_of, one, written
from leakscope.formats._frame_text import function_and_file, function_and_place

_FUNCTIONS = (
    "main",
    "operator()",
    "operator()<int>",
    "__invoke_impl<void, main(int, char**)::<lambda()> >",
    "Pair<std::map<int, char>, char const (*)(int)>::operator std::vector<std::pair<int, X> >()",
    "(anonymous namespace)::Anon::operator()(int)",
    "operator new[](unsigned long)",
    "operator new",
    "std::enable_if<is_v<void, main::{lambda(int, double)#2}&>, void>::type std::f<void>(int&&)",
    "A::f(int) const",
    "foo(int) (.part.0)",
    "f() [clone .isra.0]",
    "main.(*T).foo",
    "<a::B as c::D>::e::h12",
    "A::operator->(int) const",
    "A::operator<<(int)",
    "bool std::operator==<int>(A<int> const&)",
    "x::f<Fn(A) -> B>(C)",
    "main::{lambda()#3}::operator()() const",
    "non-virtual thunk to A::f()",
)


@pytest.mark.parametrize("function", _FUNCTIONS)
@pytest.mark.parametrize("file", ["x.c", "src, dir/x.c", "/my app (1)/x y.c", "my (1)/x.c"])
def test_a_function_ends_where_its_file_begins(function, file):
    assert function_and_file(f"{function} {file}") == (function, file)


@pytest.mark.parametrize("function", [*_FUNCTIONS, "???"])
@pytest.mark.parametrize("place", ["x.c:3", "in /my app (1)/a b", "/src, (2) (3)/x.c:12:4"])
def test_a_place_ends_with_its_own_bracket(function, place):
    assert function_and_place(f"{function} ({place})") == (function, place)


@pytest.mark.parametrize("text", ["f(int)", "", ")", "main", "f(A (*)(int))"])
def test_brackets_of_a_function_are_no_place(text):
    assert function_and_place(text) == (text, None)


SOURCE = """
#include <cstdlib>
template <class A, class B> struct Two { static void keep(A) { void *volatile p = malloc(77); p = 0; } };
int main() { Two<int, const char (*)(int, char)>::keep(3); }
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("my app (1)")
    (folder / "src, dir").mkdir()
    (folder / "src, dir" / "two.cpp").write_text(SOURCE)
    return folder


def _built(folder, name, *options):
    command = ["g++", "-g", "-O0", "src, dir/two.cpp", "-o", name, *options]
    subprocess.run(command, cwd=folder, check=True)
    return folder / name


def _place(path):
    recording = one(path)
    (finding,) = (each for each in findings_of(recording).findings if each.live_bytes == 77)
    return finding.stack[0]


def test_leak_sanitizer_writes_a_relative_path_with_blanks(folder):
    program = _built(folder, "with asan", "-fsanitize=address")
    done = subprocess.run([program], cwd=folder, capture_output=True, check=False)
    frame = _place(written(folder, done.stderr))
    assert frame.file == "src, dir/two.cpp"
    assert frame.line == 3
    assert frame.function.endswith("keep(int)")


def test_leak_sanitizer_writes_a_module_with_brackets_in_its_path(folder):
    program = _built(folder, "with asan", "-fsanitize=address")
    done = subprocess.run(
        [program], cwd=folder, capture_output=True, check=False, env={"ASAN_OPTIONS": "symbolize=0"}
    )
    assert _place(written(folder, done.stderr)).module_path == str(program)


@pytest.mark.parametrize("option", ["--fullpath-after=", "--num-callers=12"])
def test_valgrind_writes_paths_with_brackets(folder, option):
    assert shutil.which("valgrind")
    program = _built(folder, "plain one")
    done = subprocess.run(
        ["valgrind", "--leak-check=full", option, program],
        cwd=folder,
        capture_output=True,
        check=False,
    )
    frame = _place(written(folder, done.stderr))
    assert (frame.line, frame.function.endswith("keep(int)")) == (3, True)
    assert frame.file.endswith("two.cpp")
    assert "(" not in frame.file or frame.file == str(folder / "src, dir" / "two.cpp")


def test_valgrind_writes_a_module_with_brackets_in_its_path(folder):
    program = _built(folder, "stripped", "-s")
    done = subprocess.run(
        ["valgrind", "--leak-check=full", program], capture_output=True, check=False
    )
    frame = _place(written(folder, done.stderr))
    assert (frame.function, frame.module_path) == (None, str(program))


def test_valgrind_escapes_blanks_in_the_name_of_the_program(folder):
    program = _built(folder, "plain one")
    log = folder / "log"
    subprocess.run(
        ["valgrind", "--leak-check=full", f"--log-file={log}", program, "a b"],
        check=False, capture_output=True,
    )  # fmt: skip
    assert one(log).process.exe == str(program)
