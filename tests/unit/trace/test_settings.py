# SPDX-License-Identifier: Apache-2.0
import signal

import pytest

from leakscope.errors import UsageError
from leakscope.trace.settings import Settings, parse_signal, parse_size


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("4096", 4096),
        ("512KiB", 512 << 10),
        ("512kb", 512 << 10),
        ("64k", 64 << 10),
        ("1.5M", 3 << 19),
        ("2 GiB", 2 << 30),
        ("1T", 1 << 40),
        ("7B", 7),
    ],
)
def test_sizes_have_binary_units(text, expected):
    assert parse_size(text) == expected


@pytest.mark.parametrize("text", ["", "k", "-1", "1e3", "0x10", "12 monkeys", "1.M", "1" * 40])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(UsageError, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("USR1", signal.SIGUSR1),
        ("sigusr2", signal.SIGUSR2),
        ("10", 10),
        ("RTMIN+3", signal.SIGRTMIN + 3),
    ],
)
def test_signals_by_name_and_number(text, expected):
    assert parse_signal(text) == expected


@pytest.mark.parametrize("text", ["", "NOSUCH", "0", "65", "SIG_BLOCK", "-1", "RTMIN+99"])
def test_what_is_no_signal_is_refused(text):
    with pytest.raises(UsageError, match="there is no signal"):
        parse_signal(text)


@pytest.mark.parametrize("text", ["KILL", "STOP", "SEGV", "CHLD"])
def test_signals_that_cannot_control_are_refused(text):
    with pytest.raises(UsageError, match=f"SIG{text} cannot control recording"):
        parse_signal(text)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"sample": 0}, "sampling period"),
        ({"min_size": -1}, "smallest size"),
        ({"max_size": -5}, "largest size"),
        ({"min_size": 10, "max_size": 9}, "nothing would be recorded"),
        ({"depth": 0}, "between 1 and 256"),
        ({"depth": 257}, "between 1 and 256"),
        ({"start_after": -0.5}, "cannot start after"),
        ({"start_after": float("nan")}, "cannot start after"),
        ({"dump_signal": 9}, "SIGKILL"),
        ({"start_signal": 10, "dump_signal": 10}, "must differ"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values, reason):
    with pytest.raises(UsageError, match=reason):
        Settings(**values)


def test_only_what_was_asked_for_reaches_the_environment():
    assert Settings().environment("/dev/shm/x") == {
        "LEAKSCOPE_DIR": "/dev/shm/x",
        "LEAKSCOPE_KEEP": "2048",
    }


def test_everything_asked_for_reaches_the_environment():
    settings = Settings(
        sample=524288,
        min_size=16,
        max_size=4096,
        depth=64,
        start_after=1.5,
        start_signal=10,
        stop_signal=12,
        dump_signal=34,
        children=False,
    )

    assert settings.environment("/d") == {
        "LEAKSCOPE_DIR": "/d",
        "LEAKSCOPE_KEEP": "2048",
        "LEAKSCOPE_SAMPLE": "524288",
        "LEAKSCOPE_MIN_SIZE": "16",
        "LEAKSCOPE_MAX_SIZE": "4096",
        "LEAKSCOPE_DEPTH": "64",
        "LEAKSCOPE_START_AFTER": "1.500000000",
        "LEAKSCOPE_START_SIGNAL": "10",
        "LEAKSCOPE_STOP_SIGNAL": "12",
        "LEAKSCOPE_DUMP_SIGNAL": "34",
        "LEAKSCOPE_CHILDREN": "0",
    }


@pytest.mark.parametrize("directory", ["relative", "/" + "x" * 600])
def test_a_directory_that_the_agent_cannot_take_is_refused(directory):
    with pytest.raises(UsageError, match="not absolute or longer"):
        Settings().environment(directory)
