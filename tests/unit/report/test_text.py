# SPDX-License-Identifier: Apache-2.0
"""Numbers and names as people read them."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from leakscope.report.ink import Ink
from leakscope.report.text import cells, clip_left, clip_right, name_within, printable
from leakscope.words import (
    bytes_text,
    duration_text,
    interval_text,
    percent_text,
    plural,
    rate_text,
)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (1023, "1,023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (102_400, "100 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (10_590_208, "10.1 MiB"),
        (3 * 1024**4, "3.0 TiB"),
        (2**64 - 1, "16.0 EiB"),
        (-2048, "-2.0 KiB"),
        (float("nan"), "?"),
        (float("inf"), "?"),
    ],
)
def test_a_size_has_a_binary_unit_and_three_digits(size, text):
    assert bytes_text(size) == text


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (4198.4, "4.1 KiB/s"),
        (1.0, "1 B/s"),
        (0.5, "1.8 KiB/h"),
        (0.0001, "9 B/day"),
        (0.0, "0 B/s"),
        (-4198.4, "-4.1 KiB/s"),
    ],
)
def test_a_slow_rate_gets_a_longer_unit_of_time(rate, text):
    assert rate_text(rate) == text


def test_an_interval_names_a_shared_unit_once():
    assert interval_text("3.8 KiB/s", "4.4 KiB/s") == "3.8 to 4.4 KiB/s"
    assert interval_text("900 B/s", "4.4 KiB/s") == "900 B/s to 4.4 KiB/s"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.34, "340 ms"),
        (12.34, "12.3 s"),
        (120, "2 min"),
        (7500, "2 h 5 min"),
        (7200, "2 h"),
        (1e6, "11 days 13 h"),
        (-1, "0 ms"),
    ],
)
def test_a_duration_has_at_most_two_units(seconds, text):
    assert duration_text(int(seconds * 1e9)) == text


def test_a_share_never_rounds_to_none_or_all():
    assert percent_text(1, 100_000) == "<1 %"
    assert percent_text(99_999, 100_000) == "99 %"
    assert percent_text(5, 5) == "100 %"
    assert percent_text(0, 0) == "0 %"


def test_a_count_of_one_is_singular():
    assert plural(1, "block") == "1 block"
    assert plural(1204, "block") == "1,204 blocks"
    assert plural(2, "branch", "branches") == "2 branches"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("plain", "plain"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\x9b2J", "\\x9b2J"),  # the 8-bit form of ESC [
        ("rtl\u202etxt", "rtl\\u202etxt"),
        ("half\udc80", "half\\udc80"),
        ("größe", "größe"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_what_would_move_the_cursor_is_escaped(name, text):
    assert printable(name) == text


@given(st.text())
@example("half \udc80")
def test_a_printable_text_is_printable_and_stays_so(name):
    text = printable(name)
    assert text.isprintable()
    assert printable(text) == text


@pytest.mark.parametrize(
    ("name", "room", "text"),
    [
        ("ns::f(int)", 20, "ns::f(int)"),
        (
            "std::vector<std::pair<int, long> >::push_back(int)",
            40,
            "std::vector<…>::push_back(int)",
        ),
        ("std::vector<int>::push_back(std::string const&)", 30, "std::vector<…>::push_back(…)"),
        ("std::operator<< <char>(std::ostream&, char)", 30, "std::operator<< <…>(…)"),
        ("A::operator->(std::pair<int, int>)", 20, "A::operator->(…)"),
        ("ns::f()::Local::g(std::string)", 25, "ns::f()::Local::g(…)"),
        ("F::operator()(std::pair<int, int>)", 20, "F::operator()(…)"),
        (
            "<alloc::vec::Vec<T> as Extend<T>>::extend",
            60,
            "<alloc::vec::Vec<T> as Extend<T>>::extend",
        ),
        ("abcdefghijklmnopqrstuvwxyz", 10, "abcdef…xyz"),
    ],
)
def test_a_long_name_loses_its_least_telling_part_first(name, room, text):
    assert name_within(name, room, "…") == text


@given(st.text(), st.integers(4, 60), st.sampled_from(["…", "..."]))
def test_nothing_is_wider_than_its_room(name, room, ellipsis):
    name = printable(name)
    assert cells(name_within(name, room, ellipsis)) <= room
    assert cells(clip_left(name, room, ellipsis)) <= room
    assert cells(clip_right(name, room, ellipsis)) <= room


def test_a_path_is_cut_at_a_slash_and_keeps_its_end():
    assert clip_left("/home/me/project/src/main.c:42", 20, "…") == "…/src/main.c:42"


def test_wide_characters_take_two_columns():
    assert cells("漢字ab") == 6


def test_a_number_and_its_unit_are_not_torn_apart():
    assert Ink(width=40).wrap("a sentence that ends with a size of 10 MiB") == [
        "a sentence that ends with a size of",
        "10 MiB",
    ]


@given(st.text(), st.integers(20, 90))
def test_wrapped_lines_fit_and_lose_no_character(text, width):
    lines = Ink(width=width).wrap(text, "  ")
    assert all(cells(line) <= width for line in lines)
    assert "".join("".join(lines).split()) == "".join(printable(text).split())
