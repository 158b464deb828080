# SPDX-License-Identifier: Apache-2.0
"""What this kernel can tell of its memory, what is in the way, and how to enable the rest."""

from __future__ import annotations

import gzip
import os
import zlib
from enum import StrEnum
from typing import TYPE_CHECKING

from leakscope.kernel.mounts import lockdown
from leakscope.model.kernel_state import KernelSource
from leakscope.proc.allocinfo import read_profiling
from leakscope.proc.kmsg import read_log
from leakscope.proc.text import read_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from leakscope.kernel.mounts import DebugFiles

__all__ = ["Ability", "kernel_config", "kmemleak_trouble", "sources"]

_MOST_CONFIG = 4 << 20
_WORDS = ("kmemleak", "Kmemleak", "Early log buffer")


class Ability(StrEnum):
    """How much of a source there is."""

    WORKS = "works"
    OFF = "off"  # built in, and not switched on
    DENIED = "denied"
    ABSENT = "absent"


def kernel_config() -> Mapping[str, str]:
    """Return the configuration of this kernel, CONFIG_NAME to its value; empty when not known."""
    release = os.uname().release
    text = _packed("/proc/config.gz")
    for path in (f"/boot/config-{release}", f"/lib/modules/{release}/config"):
        text = text or read_text(path, _MOST_CONFIG)
    found = {}
    for line in (text or "").split("\n"):
        name, equals, value = line.partition("=")
        if equals and name.startswith("CONFIG_"):
            found[name] = value
    return found


def _packed(path: str) -> str | None:
    try:
        with gzip.open(path, "rb") as file:
            return file.read(_MOST_CONFIG).decode("ascii", "replace")
    except (OSError, EOFError, zlib.error):
        return None


def sources(debug: DebugFiles, config: Mapping[str, str] | None = None) -> tuple[KernelSource, ...]:
    """Return everything a kernel can tell, and whether this one does, to us."""
    config = kernel_config() if config is None else config
    boot = (read_text("/proc/cmdline", 1 << 16) or "").split()
    return (
        _kmemleak(debug, config, boot),
        _allocinfo(config, boot),
        _page_owner(debug, config, boot),
        _slab_traces(debug, config),
        _plain("slabinfo", "/proc/slabinfo", "caches of kernel objects, by name", config),
        _plain("vmallocinfo", "/proc/vmallocinfo", "large buffers, by the function", config),
        _plain("meminfo", "/proc/meminfo", "sums, and what no counter explains", config),
    )


def _plain(name: str, path: str, tells: str, config: Mapping[str, str]) -> KernelSource:
    try:
        with open(path, "rb") as file:
            file.read(1)
    except FileNotFoundError:
        option = "CONFIG_SLUB_DEBUG" if name == "slabinfo" else "CONFIG_MMU"
        have = config.get(option) == "y"
        why = "not in /proc here (a container hides it)" if have else "not in this kernel"
        return KernelSource(name, tells, Ability.ABSENT, why, "" if have else f"{option}=y")
    except OSError as error:
        return KernelSource(
            name, tells, Ability.DENIED, f"{error.strerror}", "sudo leakscope kernel"
        )
    return KernelSource(name, tells, Ability.WORKS)


def _denied(name: str, tells: str, path: str) -> KernelSource | None:
    """Return why a file of debugfs cannot be opened; None when it can."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
    except OSError as error:
        mode = lockdown()
        if mode is not None and os.geteuid() == 0:
            return KernelSource(
                name,
                tells,
                Ability.DENIED,
                f"the kernel is locked down ({mode})",
                "boot without lockdown (it comes with Secure Boot)",
            )
        step = "sudo leakscope kernel" if os.geteuid() else ""
        return KernelSource(name, tells, Ability.DENIED, f"{error.strerror}", step)
    return None


def _kmemleak(debug: DebugFiles, config: Mapping[str, str], boot: list[str]) -> KernelSource:
    name, tells = "kmemleak", "objects that nothing points to, with the stacks that allocated them"
    built = config.get("CONFIG_DEBUG_KMEMLEAK") == "y"
    if debug.root is None:
        if config and not built:
            return KernelSource(
                name, tells, Ability.ABSENT, "not in this kernel", "CONFIG_DEBUG_KMEMLEAK=y"
            )
        return KernelSource(name, tells, Ability.DENIED, debug.why, debug.step)
    path = debug.path("kmemleak")
    if path is not None:
        denied = _denied(name, tells, path)
        if denied is not None:
            return denied
        trouble = kmemleak_trouble()
        if trouble is not None:
            return KernelSource(name, tells, Ability.OFF, trouble, _pool_step(trouble))
        if "kmemleak=off" in boot:
            return KernelSource(name, tells, Ability.OFF, "booted with kmemleak=off", "kmemleak=on")
        return KernelSource(name, tells, Ability.WORKS)
    if built or "kmemleak=off" in boot:
        off = config.get("CONFIG_DEBUG_KMEMLEAK_DEFAULT_OFF") == "y"
        why = "built in and off by default" if off else "built in and switched off"
        return KernelSource(name, tells, Ability.OFF, why, "boot with kmemleak=on")
    return KernelSource(
        name, tells, Ability.ABSENT, "not in this kernel", "CONFIG_DEBUG_KMEMLEAK=y"
    )


def kmemleak_trouble() -> str | None:
    """Return what the kernel's log says switched kmemleak off; None where it says nothing."""
    records = read_log(lambda text: any(word in text for word in _WORDS))
    reason = None
    disabled = False
    for _, text in records or ():
        if "Memory pool empty" in text:
            reason = "its pool of memory was used up while the kernel booted"
        elif "Early log buffer exceeded" in text or "Early log buffer" in text:
            reason = "its early log was too short for what happened while the kernel booted"
        elif "Cannot allocate a kmemleak_object" in text:
            reason = reason or "it found no memory for its own notes"
        elif "Cannot insert" in text:
            reason = reason or "it met two objects at one address"
        elif "detector disabled" in text or "Kmemleak disabled" in text:
            disabled = True
        elif "detector initialized" in text:
            disabled = False
    if not disabled:
        return None
    return f"switched itself off: {reason}" if reason else "was switched off, until the next boot"


def _pool_step(trouble: str) -> str:
    if "pool" in trouble:
        return "boot a kernel with a larger CONFIG_DEBUG_KMEMLEAK_MEM_POOL_SIZE"
    if "early log" in trouble:
        return "boot a kernel with a larger CONFIG_DEBUG_KMEMLEAK_EARLY_LOG_SIZE"
    return "boot again: it cannot be switched on while the kernel runs"


def _allocinfo(config: Mapping[str, str], boot: list[str]) -> KernelSource:
    name, tells = "allocinfo", "what each source line of the kernel holds"
    counting = read_profiling()
    if counting is None:
        if config.get("CONFIG_MEM_ALLOC_PROFILING") == "y":
            return KernelSource(
                name,
                tells,
                Ability.OFF,
                "built in and off for good since the boot",
                "boot with sysctl.vm.mem_profiling=1",
            )
        new = _release() >= (6, 10)
        why = "not in this kernel" if new else "came with Linux 6.10"
        return KernelSource(name, tells, Ability.ABSENT, why, "CONFIG_MEM_ALLOC_PROFILING=y")
    if not counting:
        never = any(word.startswith("sysctl.vm.mem_profiling=never") for word in boot)
        writable = os.access("/proc/sys/vm/mem_profiling", os.W_OK) and not never
        step = "sysctl vm.mem_profiling=1" if writable else "boot with sysctl.vm.mem_profiling=1"
        return KernelSource(name, tells, Ability.OFF, "switched off (vm.mem_profiling=0)", step)
    if not os.access("/proc/allocinfo", os.R_OK):
        return KernelSource(name, tells, Ability.DENIED, "for root alone", "sudo leakscope kernel")
    return KernelSource(name, tells, Ability.WORKS)


def _page_owner(debug: DebugFiles, config: Mapping[str, str], boot: list[str]) -> KernelSource:
    name, tells = "page_owner", "the stack that took each page from the page allocator"
    if config and config.get("CONFIG_PAGE_OWNER") != "y":
        return KernelSource(
            name, tells, Ability.ABSENT, "not in this kernel", "CONFIG_PAGE_OWNER=y"
        )
    if debug.root is None:
        return KernelSource(name, tells, Ability.DENIED, debug.why, debug.step)
    path = debug.path("page_owner")
    if path is None:
        if "page_owner=on" in boot or not config:
            return KernelSource(
                name, tells, Ability.ABSENT, "not in this kernel", "CONFIG_PAGE_OWNER=y"
            )
        return KernelSource(name, tells, Ability.OFF, "built in and off", "boot with page_owner=on")
    return _denied(name, tells, path) or KernelSource(name, tells, Ability.WORKS)


def _slab_traces(debug: DebugFiles, config: Mapping[str, str]) -> KernelSource:
    name, tells = "slab traces", "the stacks that allocated the objects of a cache"
    if config and config.get("CONFIG_SLUB_DEBUG") != "y":
        return KernelSource(
            name, tells, Ability.ABSENT, "not in this kernel", "CONFIG_SLUB_DEBUG=y"
        )
    if debug.root is None:
        return KernelSource(name, tells, Ability.DENIED, debug.why, debug.step)
    option = "slab_debug" if _release() >= (6, 9) else "slub_debug"
    folder = debug.path("slab")
    if folder is not None:
        denied = _denied(name, tells, folder)
        if denied is not None:
            return denied
        try:
            with os.scandir(folder) as entries:
                if next(entries, None) is not None:
                    return KernelSource(name, tells, Ability.WORKS)
        except OSError as error:
            return KernelSource(name, tells, Ability.DENIED, f"{error.strerror}")
    return KernelSource(
        name,
        tells,
        Ability.OFF,
        "no cache keeps any",
        f"boot with {option}=U (of one cache: {option}=U,NAME)",
    )


def _release() -> tuple[int, int]:
    numbers = os.uname().release.split(".")[:2]
    if len(numbers) == 2 and all(one.isascii() and one.isdecimal() for one in numbers):
        return int(numbers[0]), int(numbers[1])
    return 0, 0
