# SPDX-License-Identifier: Apache-2.0
"""The names that people use: the script rather than python3, the unit, the container, the pod.

Everything returned comes from other programs and may hold any character: a report has to pass
it through `printable`. Arguments beyond the script's name are never returned: they hold secrets.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leakscope.proc.process import is_called, living_task, read_executable, read_name
from leakscope.proc.text import read_text

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Home", "Naming", "answers_to", "name_of", "parse_home", "work_of"]

_LONGEST_COMMAND = 1 << 20  # bytes; class paths are long
_SHORT_ID = 12  # digits, as the tools for containers show them


@dataclass(frozen=True, slots=True)
class Home:
    """Where a process lives, as far as its cgroups tell. Fields that they do not tell are None."""

    unit: str | None = None  # systemd's, "nginx.service"; inside a container the container's own
    container: str | None = None  # the whole identifier, or a name
    runtime: str | None = None  # "docker", "podman", "containerd", "cri-o", "lxc", "nspawn"
    pod: str | None = None  # Kubernetes' identifier of the pod, with dashes

    @property
    def text(self) -> str:
        """Such as "pod 3f…, containerd container 4e05f3c1b2a9"; "" when nothing is known."""
        parts = []
        if self.pod is not None:
            parts.append(f"pod {self.pod}")
        if self.container is not None:
            number = re.fullmatch(r"[0-9a-f]{32,}", self.container)
            short = self.container[:_SHORT_ID] if number else self.container
            parts.append(
                f"{self.runtime} container {short}" if self.runtime else f"container {short}"
            )
        if self.unit is not None:
            parts.append(self.unit)
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Naming:
    """What people call one process."""

    program: str  # the executable's name, "python3"; what a kernel thread calls itself
    work: str | None  # what an interpreter runs: "manage.py", "-m http.server", "com.acme.Main"
    title: str | None  # what the process says of itself in place of its arguments
    home: Home

    @property
    def short(self) -> str:
        """Such as "python3 manage.py", "nginx: worker process", "postgres"."""
        if self.title is not None:
            return self.title
        return f"{self.program} {self.work}" if self.work else self.program

    @property
    def text(self) -> str:
        """Such as "java com.acme.Main (shop.service)"."""
        home = self.home.text
        return f"{self.short} ({home})" if home else self.short


def name_of(pid: int) -> Naming:
    """Return the names of `pid`; with an empty program when it is gone."""
    task = living_task(pid)
    argv = _words(read_text(f"/proc/{task}/cmdline", _LONGEST_COMMAND) or "")
    executable = os.path.basename(read_executable(pid) or "")
    home = parse_home(read_text(f"/proc/{task}/cgroup", 1 << 16) or "")
    first = os.path.basename(argv[0].lstrip("-")) if argv else ""  # "-bash" is a login shell
    if executable.startswith("memfd:"):  # a file without a name, as container runtimes start
        executable = ""
    program = executable or first or read_name(pid)
    family = _family(executable) or _family(first)
    if family is not None and _family(first) == family:
        program = first  # python3 and not python3.11
    title = _title(argv, family is not None)
    work = None
    if family is not None and title is None:
        try:
            folder = os.readlink(f"/proc/{task}/cwd")
        except OSError:
            folder = ""
        work = work_of(argv, family, folder)
    return Naming(program, work, title, home)


def answers_to(pid: int, name: str) -> bool:
    """Whether people call the process so: by its program, or by what an interpreter runs in it.

    "manage.py" and "python3 manage.py" both mean the process that a report calls the latter.
    """
    if is_called(pid, name):
        return True
    naming = name_of(pid)
    if not naming.work:
        return False
    # Of a name such as main.py the folder is told as well, but nobody has to type it.
    last = naming.work.rpartition("/")[2]
    return name in {naming.work, naming.short, last, f"{naming.program} {last}"}


def _words(text: str) -> list[str]:
    """The arguments; a process that overwrote them leaves NULs behind its title."""
    return text.rstrip("\0").split("\0") if text else []


def _title(argv: Sequence[str], interpreter: bool) -> str | None:
    """What setproctitle left: one word with blanks, such as "gunicorn: master [shop]"."""
    if len([word for word in argv if word]) != 1:
        return None
    # A path with a blank in it is a path; a title names the program, or has a colon.
    word = argv[0].strip()
    if word.startswith("/") or " " not in word:
        return None
    return word if interpreter or re.match(r"[\w.+-]+:? ", word) else None


# -- what an interpreter runs ---------------------------------------------------

_FAMILIES = {
    "python": re.compile(r"(?:python|pypy)[\d.]*(?:-dbg|d|t)?$"),
    "java": re.compile(r"java$"),
    "node": re.compile(r"(?:node|nodejs|bun|deno)[\d.]*$"),
    "perl": re.compile(r"perl[\d.]*$"),
    "ruby": re.compile(r"(?:ruby|truffleruby|jruby)[\d.]*$"),
    "php": re.compile(r"php[\d.]*(?:-cgi)?$"),
    "sh": re.compile(r"(?:ba|da|k|z|a|mk)?sh$"),
    "dotnet": re.compile(r"(?:dotnet|mono|mono-sgen)$"),
    "loader": re.compile(r"ld(?:-linux[\w-]*|-musl[\w-]*|64|-[\d.]+)?\.so(?:\.\d+)?$"),
}


@dataclass(frozen=True, slots=True)
class _Options:
    """How a command line divides into the interpreter's own options and the script."""

    code: str = ""  # letters after which the program itself follows
    module: str = ""  # letters after which the name of a module follows
    file: str = ""  # letters after which the script follows
    value: str = ""  # letters with a value: the rest of the word, or the next word
    rest: str = ""  # letters whose value can only be the rest of the word
    long: frozenset[str] = frozenset()  # long options whose value is the next word
    long_code: frozenset[str] = frozenset()
    commands: frozenset[str] = frozenset()  # words before the script


_OPTIONS = {
    "python": _Options(
        code="c", module="m", value="WXQ", long=frozenset({"--check-hash-based-pycs"})
    ),
    "node": _Options(
        code="ep",
        value="rC",
        long=frozenset(
            {"--require", "--import", "--loader", "--experimental-loader", "--conditions"}
            | {"--title", "--env-file", "--env-file-if-exists", "--inspect-port", "--config"}
            | {"--openssl-config", "--icu-data-dir", "--input-type", "--watch-path", "--cwd"}
        ),
        long_code=frozenset({"--eval", "--print"}),
        commands=frozenset({"inspect", "debug", "run", "serve"}),
    ),
    "perl": _Options(code="eE", value="I", rest="MmiCDFxdV"),
    "ruby": _Options(
        code="e",
        value="IrEC",
        rest="WxTiFK",
        long=frozenset(
            {"--encoding", "--external-encoding", "--internal-encoding", "--enable", "--disable"}
        ),
    ),
    "php": _Options(
        code="rBR", file="fF", value="dczSt", long=frozenset({"--define", "--php-ini"})
    ),
    "sh": _Options(code="c", value="oO", long=frozenset({"--rcfile", "--init-file"})),
    "dotnet": _Options(
        long=frozenset(
            {"--runtimeconfig", "--depsfile", "--additionalprobingpath", "--fx-version"}
            | {"--additional-deps", "--roll-forward", "--config"}
        ),
        commands=frozenset({"exec"}),
    ),
    "loader": _Options(
        long=frozenset(
            {"--library-path", "--preload", "--argv0", "--audit", "--inhibit-rpath"}
            | {"--glibc-hwcaps-prepend", "--glibc-hwcaps-mask"}
        )
    ),
}
_JAVA_VALUE = frozenset(
    {"-cp", "-classpath", "--class-path", "-p", "--module-path", "--upgrade-module-path"}
    | {"--add-modules", "--add-reads", "--add-exports", "--add-opens", "--limit-modules"}
    | {"--patch-module", "--source", "--enable-native-access", "--illegal-native-access"}
)
# Names that every other project uses as well: their folder is what tells them apart.
_GENERIC = re.compile(
    r"(?:__main__|main|app|manage|run|start|server|index|worker|cli|bot|wsgi|asgi|config|artisan|console"
    r"|script|test|program|entrypoint|docker-entrypoint)(?:\.\w{1,4})?$"
)


def _family(name: str) -> str | None:
    return next((family for family, pattern in _FAMILIES.items() if pattern.match(name)), None)


def work_of(argv: Sequence[str], family: str | None = None, folder: str = "") -> str | None:
    """Return what the interpreter `argv[0]` runs; None: nothing, or it is no interpreter.

    "-m pkg" for a module and "-c", "-e" for code on the command line, which is not shown.
    `folder` is the working directory: it says whose "main.py" is meant.
    """
    if not argv:
        return None
    family = family or _family(os.path.basename(argv[0].lstrip("-")))
    if family is None:
        return None
    if family == "java":
        return _java(argv[1:])
    return _script(list(argv[1:]), _OPTIONS[family], folder)


def _script(words: list[str], options: _Options, folder: str) -> str | None:
    ended = False
    while words:
        word = words.pop(0)
        if word == "--" and not ended:
            ended = True
        elif ended or word == "-" or not word.startswith(("-", "+")):
            if word in {"-", ""}:
                return None  # from standard input
            if not ended and (word in options.commands or word.isdecimal()):
                continue  # a number is the value of an option that we do not know
            return _file(word, folder)
        elif word.startswith("--"):
            name, equals, _ = word.partition("=")
            if name in options.long_code:
                return "-" + name[2]
            if name in options.long and not equals and words:
                words.pop(0)
        else:
            found = _cluster(word, words, options, folder)
            if found is not None:
                return found
    return None


def _cluster(word: str, words: list[str], options: _Options, folder: str) -> str | None:
    """Read letters behind one dash; "-um pkg" and "-umpkg" are the same."""
    for at, letter in enumerate(word[1:], 2):
        rest = word[at:]
        if letter in options.code:
            return f"-{letter}"
        if letter in options.rest:
            return None
        if letter in options.module or letter in options.file or letter in options.value:
            value = rest or (words.pop(0) if words else "")
            if letter in options.value or not value:
                return None
            return f"-{letter} {value}" if letter in options.module else _file(value, folder)
    return None


def _java(words: Sequence[str]) -> str | None:
    at = 0
    while at < len(words):
        word = words[at]
        following = words[at + 1] if at + 1 < len(words) else ""
        if word == "-jar":
            return _file(following, "") if following else None
        if word in {"-m", "--module"}:
            return following or None
        if word.startswith("--module="):
            return word.partition("=")[2] or None
        if word in _JAVA_VALUE:
            at += 2
        elif word.startswith(("-", "@")) or not word:
            at += 1
        else:
            return _file(word, "") if word.endswith(".java") else word
    return None


def _file(path: str, folder: str) -> str:
    """The name of a script, with its folder where the name alone says nothing."""
    name = os.path.basename(path) or path
    if not _GENERIC.match(name):
        return name
    parent = os.path.basename(os.path.dirname(os.path.normpath(os.path.join(folder, path))))
    return f"{parent}/{name}" if parent and parent not in {"bin", ".", ".."} else name


# -- where it lives ---------------------------------------------------------------

_ID = r"(?P<id>[0-9a-f]{64})"
_SCOPE = re.compile(
    rf"(?P<runtime>docker|libpod|cri-containerd|crio|nerdctl|podman|containerd|moby)-{_ID}(?:\.scope)?$"
)
_COLON = re.compile(rf"[^:]*:(?P<runtime>cri-containerd|docker|crio|nerdctl|containerd):{_ID}$")
_BARE = re.compile(rf"{_ID}$")
_FARGATE = re.compile(r"(?P<id>[0-9a-f]{32}-\d+)$")
_POD = re.compile(
    r"(?:.*-)?pod(?P<pod>[0-9a-f]{8}[-_]?[0-9a-f]{4}[-_]?[0-9a-f]{4}[-_]?[0-9a-f]{4}[-_]?[0-9a-f]{12})"
    r"(?:\.slice)?(?::.*)?$"
)
_LXC = re.compile(r"lxc(?:\.payload)?(?:\.(?P<id>.+))?$")
_MACHINE = re.compile(r"(?:machine-(?P<scope>.+)\.scope|systemd-nspawn@(?P<service>.+)\.service)$")
_UNIT = re.compile(r".+\.(?:service|scope|socket|mount|swap)$")
_NO_UNIT = re.compile(r"session-\w+\.scope$|user@\d+\.service$|init\.scope$")
_RUNTIMES = {
    "libpod": "podman",
    "cri-containerd": "containerd",
    "nerdctl": "containerd",
    "crio": "cri-o",
    "moby": "docker",
}
_PARENTS = {
    "docker": "docker",
    "libpod_parent": "podman",
    "buildkit": "docker",
    "default": "containerd",
}
_ESCAPE = re.compile(r"\\x([0-9a-f]{2})")


def parse_home(text: str) -> Home:
    """Read /proc/PID/cgroup, of version 1, 2 or both."""
    paths: dict[str, str] = {}
    for line in text.split("\n"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if path and number.isdecimal():
            for name in controllers.split(","):
                paths.setdefault(name, path)
    # Version 2, systemd's own hierarchy, then what a container is sure to be limited by.
    first = [name for name in ("", "name=systemd", "memory", "pids") if name in paths]
    homes = [_home(paths[name]) for name in (*first, *sorted(set(paths) - set(first)))]
    within = next((home for home in homes if home.container is not None), None)
    if within is not None:
        pod = next((home.pod for home in homes if home.pod is not None), None)
        return Home(within.unit, within.container, within.runtime, pod)
    return next((home for home in homes if home != Home()), Home())


def _home(path: str) -> Home:
    unit = container = runtime = pod = None
    parent = ""
    for part in path.split("/"):
        found = _SCOPE.match(part) or _COLON.match(part) or _BARE.match(part)
        if found is None and parent == "ecs":
            found = _FARGATE.match(part)
        if (its := _POD.match(part)) is not None:
            pod = _dashed(its["pod"])
        if found is not None:
            name = found.groupdict().get("runtime") or ""
            container = found["id"]
            runtime = _RUNTIMES.get(name, name) or _PARENTS.get(parent)
            unit = None  # that of the container, or of the daemon that it was started by
        elif (machine := _MACHINE.match(part)) is not None:
            container = _unescaped(machine["scope"] or machine["service"])
            runtime, unit = "nspawn" if machine["service"] else None, None
        elif parent in {"lxc", "lxc.payload"} or ((lxc := _LXC.match(part)) and lxc["id"]):
            container = part if parent in {"lxc", "lxc.payload"} else part.rpartition("payload.")[2]
            runtime, unit = "lxc", None
        elif _UNIT.match(part) and not _NO_UNIT.match(part):
            unit = _unescaped(part)
        parent = part if part != "ecs" and parent != "ecs" else "ecs"
    return Home(unit, container, runtime, pod)


def _dashed(pod: str) -> str:
    digits = pod.replace("_", "").replace("-", "")
    if pod == digits:  # a static pod's, a hash without dashes
        return pod
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _unescaped(unit: str) -> str:
    r"""Systemd writes "-" in a name as "\x2d"."""
    return _ESCAPE.sub(lambda found: chr(int(found[1], 16)), unit)
