# SPDX-License-Identifier: Apache-2.0
"""Calls of adb: every one is told before it is made, and what goes wrong is a sentence."""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from leakscope.errors import TargetError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Adb", "Device", "devices"]

_PATIENCE_S = 60.0
_MOST = 32 << 20  # bytes of an answer
_PROPERTY = re.compile(r"[A-Za-z0-9_.\-:@]{1,256}")
# What adb says, and what it means.
_GONE = ("device offline", "no devices/emulators found", "device not found", "error: closed")
_NEWEST = 36
_SOME_PID = 1234  # in a dry run


@dataclass(frozen=True, slots=True)
class Device:
    """One line of `adb devices`: its serial number and its state."""

    serial: str
    state: str


@dataclass(slots=True)
class Adb:
    """One device. With `dry_run` calls are told and not made: questions have the likely answer."""

    serial: str | None = None
    dry_run: bool = False
    told: Callable[[str], None] = lambda _: None
    program: str = "adb"
    _answers: dict[str, str] = field(
        default_factory=lambda: {"ro.build.version.sdk": str(_NEWEST), "ro.build.type": "userdebug"}
    )

    def call(self, *arguments: str, patience_s: float = _PATIENCE_S) -> str:
        """Call adb and return what it says. Raises `TargetError` in a sentence."""
        command = [self.program, *(["-s", self.serial] if self.serial else []), *arguments]
        self.told(shlex.join(command))
        if self.dry_run:
            return ""
        if shutil.which(self.program) is None:
            raise TargetError(
                "adb is not installed here", hint="On Debian: apt install adb; or Android's SDK."
            )
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                check=False,
                timeout=patience_s,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for us, and does not cut off what undoes
            )
        except subprocess.TimeoutExpired as error:
            raise TargetError(
                f"the device does not answer: {shlex.join(command[:6])} took more than {patience_s:.0f} s",
                hint="Look at the cable and at the device's screen.",
            ) from error
        except OSError as error:
            raise TargetError(f"adb cannot be started: {error.strerror}") from error
        said = done.stdout[:_MOST].decode("utf-8", "replace")
        wrong = done.stderr[:4096].decode("utf-8", "replace")
        if done.returncode != 0:
            raise _problem(" ".join((wrong or said).split())[:300], command)
        return said.replace("\r\n", "\n")

    def shell(self, *words: str, patience_s: float = _PATIENCE_S) -> str:
        """Run words on the device, quoted for its shell."""
        return self.call("shell", shlex.join(words), patience_s=patience_s)

    def get(self, name: str) -> str:
        """Return a property of the device, "" where it is not set."""
        said = self.shell("getprop", _checked(name)).strip()
        return self._answers.get(name, "") if self.dry_run else said

    def set(self, name: str, value: str) -> None:
        """Set a property, and see that it is set. Raises `TargetError` where it may not be."""
        self.shell("setprop", _checked(name), value)
        if not self.dry_run and self.shell("getprop", name).strip() != value.strip():
            raise TargetError(
                f"the device does not let {name} be set",
                hint="That takes root (adb root), or an app that is debuggable.",
            )

    @property
    def sdk(self) -> int:
        """The API level; 0 where the device does not tell."""
        text = self.get("ro.build.version.sdk")
        return int(text) if text.isdecimal() and len(text) < 4 else 0

    @property
    def is_root(self) -> bool:
        """Whether commands run as root."""
        if self.dry_run:
            self.shell("id", "-u")
            return True
        return self.shell("id", "-u").strip() == "0"

    def pids(self, name: str) -> list[int]:
        """Return the processes of that name."""
        with contextlib.suppress(TargetError):  # none: its status is 1
            found = self.shell("pidof", name).split()
            if self.dry_run:
                return [_SOME_PID]
            return [int(each) for each in found if each.isdecimal() and len(each) < 8]
        return []


def devices(adb: Adb) -> list[Device]:
    """Return the devices that adb knows."""
    found = []
    for line in adb.call("devices").splitlines()[1:]:
        serial, _, state = line.partition("\t")
        if serial.strip() and state.strip():
            found.append(Device(serial.strip(), state.strip()))
    return found


def _checked(name: str) -> str:
    if not _PROPERTY.fullmatch(name):
        raise UsageError(f"{name[:80]!r} is no name of a property or an app")
    return name


def _problem(said: str, command: list[str]) -> TargetError:
    low = said.lower()
    if "unauthorized" in low:
        return TargetError(
            "the device does not trust this machine", hint="Accept its question on its screen."
        )
    if "more than one device" in low:
        return TargetError(
            "there are several devices", hint="Name one: --serial SERIAL (adb devices lists them)."
        )
    if any(word in low for word in _GONE) or re.search(r"device '.*' not found", low):
        return TargetError("there is no device, or it is gone", hint="adb devices lists them.")
    if "permission denied" in low or "not allowed" in low or "must be root" in low:
        return TargetError(f"the device refuses {command[-1][:80]}: {said}", hint="Try: adb root")
    return TargetError(f"{shlex.join(command)[:200]} failed: {said or 'no reason given'}")
