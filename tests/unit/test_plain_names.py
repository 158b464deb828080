# SPDX-License-Identifier: Apache-2.0
"""Names of functions without results and parameters, as compilers and demanglers write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leakscope.judge.identities import stable_names
from leakscope.model.frames import Frame, plain_name

SAME = (
    "Op::operator<<",
    "A::operator=",
    "A::operator<",
    "foo::operator()",
    "main.site[...]",
    "main.(*T).Method.func1",
    "<lambda(int)>",
    "main()::<lambda(int)>",
    "int (*get(int))(char)",
    "<alloc::vec::Vec<T> as core::clone::Clone>::clone",
    "core::ops::function::FnOnce::call_once{{vtable.shim}}",
    "operators::f",
    "_Z3foov",
)


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("std::vector<A> util::make<A>(int) const", "util::make<A>"),
        ("Op::operator()(int) const", "Op::operator()"),
        ("Op::operator<<(int)", "Op::operator<<"),
        ("Op::operator<(Op const&) const", "Op::operator<"),
        ("Op::operator<=>(Op const&) const", "Op::operator<=>"),
        ("Op::operator->() const", "Op::operator->"),
        ("Op::operator,(int)", "Op::operator,"),
        ("Op::operator bool() const", "Op::operator bool"),
        ("Op::operator std::string<char>() const", "Op::operator std::string<char>"),
        ("operator new[](unsigned long)", "operator new[]"),
        ('char operator"" _x(char const*)', 'operator"" _x'),
        ("std::map<int, int>::operator[](int&&)", "std::map<int, int>::operator[]"),
        (
            "std::ostream& std::operator<< <std::char_traits<char> >(std::ostream&, char const*)",
            "std::operator<< <std::char_traits<char> >",
        ),
        ("main::{lambda(int)#1}::operator()(int) const", "main::{lambda(int)#1}::operator()"),
        ("main::{lambda(int)#2}::_FUN(int)", "main::{lambda(int)#2}::_FUN"),
        (
            "auto main::{lambda(auto:1)#1}::operator()<int>(int) const",
            "main::{lambda(auto:1)#1}::operator()<int>",
        ),
        ("main::'lambda'(int)::operator()(int) const", "main::'lambda'(int)::operator()"),
        ("main::$_0::operator()(int) const", "main::$_0::operator()"),
        ("int f(int)::Local::g(char)", "f(int)::Local::g"),
        ("A::f(int) const::Local::g(char)", "A::f(int) const::Local::g"),
        ("void (anonymous namespace)::g<int>(int)", "(anonymous namespace)::g<int>"),
        ("decltype (f(x)) ns::h<int>(int)", "ns::h<int>"),
        ("f<(1>2)>(int)", "f<(1>2)>"),
        ("f (int)", "f"),
        ("f(int) [clone .constprop.0]", "f"),
        ("f(int, unsig", "f"),
        *((name, name) for name in SAME),
    ],
)
def test_plain_name(name, plain):
    assert plain_name(name) == plain


@given(st.text("operat<>(){}[]: *&.,lmbd#1", max_size=60))
def test_any_text_has_a_plain_name(name):
    assert not name or plain_name(name)


def _identity(name):
    return stable_names([Frame(None, function=name)])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("main::{lambda(int)#1}::operator()(int) const", "operator()"),
        ("std::ostream& std::operator<< <A>(std::ostream&, A)", "operator<<"),
        ("Op::operator<<(int)", "operator<<"),
        ("f()::Local::g(int)", "g"),
    ],
)
def test_a_symbol_and_debug_information_name_the_same_function(one, other):
    assert _identity(one) == _identity(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("main.(*Cache).Get", "main.(*Pool).Get.func1"),
        ("main.(*Cache).Get", "main.(*Cache).Put"),
        ("main::{lambda(int)#1}::operator()(int) const", "other::{lambda(int)#1}::_FUN(int)"),
        ("Op::operator<(Op const&)", "Op::operator<<(int)"),
    ],
)
def test_functions_that_differ_are_told_apart(one, other):
    assert _identity(one) != _identity(other)
