# SPDX-License-Identifier: Apache-2.0
"""The options of Android's malloc_debug, each with its values and the API level that brought it.

From the documentation of bionic (libc/malloc_debug/README.md).
"""

from __future__ import annotations

from dataclasses import dataclass

from leakscope.errors import UsageError

__all__ = ["OPTIONS", "Option", "check_options"]

_K = 1 << 10
_SAY = 200


@dataclass(frozen=True, slots=True)
class Option:
    """One option. `low` and `high` bound its value, None: it takes none; `text`: it is a text."""

    name: str
    since: int
    low: int | None = None
    high: int | None = None
    text: bool = False
    needs_value: bool = False


_BYTES = (1, 16 * _K)
_LIST = (
    Option("front_guard", 24, *_BYTES),
    Option("rear_guard", 24, *_BYTES),
    Option("guard", 24, *_BYTES),
    Option("backtrace", 24, 1, 256),
    Option("backtrace_enable_on_signal", 24, 1, 256),
    Option("backtrace_dump_on_exit", 28),
    Option("backtrace_dump_prefix", 28, text=True, needs_value=True),
    Option("backtrace_full", 29),
    Option("backtrace_min_size", 34, 1, 1 << 30, needs_value=True),
    Option("backtrace_max_size", 34, 1, 1 << 30, needs_value=True),
    Option("backtrace_size", 34, 1, 1 << 30, needs_value=True),
    Option("bt", 34, 1, 256),
    Option("bt_dmp_on_ex", 34),
    Option("bt_dmp_pre", 34, text=True, needs_value=True),
    Option("bt_en_on_sig", 34, 1, 256),
    Option("bt_full", 34),
    Option("bt_max_sz", 34, 1, 1 << 30, needs_value=True),
    Option("bt_min_sz", 34, 1, 1 << 30, needs_value=True),
    Option("bt_sz", 34, 1, 1 << 30, needs_value=True),
    Option("check_unreachable_on_signal", 34),
    Option("fill", 24, 1, 1 << 30),
    Option("fill_on_alloc", 24, 1, 1 << 30),
    Option("fill_on_free", 24, 1, 1 << 30),
    Option("expand_alloc", 24, *_BYTES),
    Option("free_track", 24, 1, 16 * _K),
    Option("free_track_backtrace_num_frames", 24, 0, 256),
    Option("leak_track", 24),
    Option("log_allocator_stats_on_signal", 35),
    Option("log_allocator_stats_on_exit", 35),
    Option("record_allocs", 27, 1, 50_000_000),
    Option("record_allocs_file", 27, text=True, needs_value=True),
    Option("record_allocs_on_exit", 34),
    Option("verify_pointers", 31),
    Option("abort_on_error", 31),
    Option("verbose", 31),
)
OPTIONS = {option.name: option for option in _LIST}
_PLURAL = {"guards": "guard", "backtraces": "backtrace"}


def check_options(text: str, sdk: int) -> str:
    """Return options as malloc_debug takes them, each of them known there and of a right value.

    Raises `UsageError` with the option that is wrong. `sdk` is the API level, 0: not known.
    """
    words = text.split()
    if not words:
        raise UsageError("--options is empty", hint="Usual is: --options backtrace")
    found = []
    for word in words:
        name, equals, value = word.partition("=")
        name = _PLURAL.get(name, name)
        option = OPTIONS.get(name)
        if option is None:
            near = [each for each in OPTIONS if each.startswith(name[:4]) and name[:4]]
            hint = f"Did you mean {' or '.join(near[:3])}?" if near else None
            raise UsageError(f"malloc_debug has no option {name[:_SAY]!r}", hint=hint)
        if sdk and sdk < option.since:
            raise UsageError(
                f"malloc_debug has {name} from API level {option.since} on, and the device has {sdk}"
            )
        _check_value(option, value if equals else None)
        found.append(f"{name}={value}" if equals else name)
    return " ".join(found)


def _check_value(option: Option, value: str | None) -> None:
    if value is None:
        if option.needs_value:
            raise UsageError(f"malloc_debug's {option.name} needs a value: {option.name}=…")
        return
    if option.text:
        if not value.startswith("/") or any(c in value for c in "'\"\\$`;&|<>()"):
            raise UsageError(f"malloc_debug's {option.name} takes the path of a file on the device")
        return
    if option.low is None or option.high is None:
        raise UsageError(f"malloc_debug's {option.name} takes no value")
    if not value.isdecimal() or len(value) > 10 or not option.low <= int(value) <= option.high:
        raise UsageError(
            f"malloc_debug's {option.name} takes a number from {option.low:,} to {option.high:,},"
            f" not {value[:20]!r}"
        )
