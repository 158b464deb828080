# SPDX-License-Identifier: Apache-2.0
"""An ordinary user, in folders that are gone or that he may not read: answers, and no bug."""

import json
import os
import shlex
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[2] / "src"
NOBODY = "65534"
LOCKED = "/root/of/nobody/else"  # below a folder that an ordinary user may not enter


@pytest.fixture(scope="module")
def place():
    """A folder of nobody's own, with a program and a recording of it."""
    with tempfile.TemporaryDirectory(prefix="leakscope-test-") as name:
        folder = Path(name)
        (folder / "leaks.c").write_text(
            "#include <stdlib.h>\n#include <unistd.h>\nvoid *volatile p;\n"
            "int main(int n, char **v) { for (int i = 0; i < 500; i++) p = malloc(100);\n"
            " sleep(n > 1 ? 90 : 0); return 0; }\n"
        )
        subprocess.run(["gcc", "-g", "leaks.c", "-o", "leaks"], cwd=folder, check=True)
        (folder / "cwd").mkdir()
        (folder / "out").mkdir()
        if os.getuid() == 0:
            folder.chmod(0o755)
            for path in (folder, folder / "cwd", folder / "out", folder / "leaks"):
                os.chown(path, int(NOBODY), int(NOBODY))
        yield folder


@pytest.fixture(scope="module")
def nobody(place):
    """Run shell lines as an ordinary user, where `leakscope` is the one of the sources.

    Python and our packages may lie where he cannot go, so he gets them under other names.
    """
    needed = [sys.base_prefix, str(SOURCES), *(p for p in sys.path if p.endswith("-packages"))]
    names = {path: str(place / f"lib{n}") for n, path in enumerate(dict.fromkeys(needed))}
    for name in names.values():
        Path(name).mkdir()
    python = names[sys.base_prefix] + f"/bin/python3.{sys.version_info.minor}"
    path = ":".join(name for real, name in names.items() if real != sys.base_prefix)
    mounts = "; ".join(f"mount --bind {shlex.quote(p)} {n}" for p, n in names.items())
    start = f"{python} -P -m leakscope"

    def run(script, **environment):
        lines = f'leakscope() {{ {start} "$@"; }}\n{script}'
        command = ["sh", "-c", lines]
        if os.getuid() == 0:
            drop = f"setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups -- "
            command = ["unshare", "-m", "sh", "-c", f"{mounts}; exec {drop}{shlex.join(command)}"]
        given = {"PATH": "/usr/bin:/bin", "PYTHONPATH": path, "HOME": str(place)}
        given["PYTHONDONTWRITEBYTECODE"] = "1"
        given |= environment
        return subprocess.run(
            command,
            env={name: value for name, value in given.items() if value is not None},
            cwd=place,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    return run


ODD = {
    "home and tmp": {"HOME": LOCKED, "TMPDIR": LOCKED, "DEBUGINFOD_URLS": "http://127.0.0.1:9"},
    "caches, no home": {
        "HOME": None,
        "XDG_CACHE_HOME": LOCKED,
        "XDG_CONFIG_HOME": LOCKED,
        "XDG_STATE_HOME": LOCKED,
        "DEBUGINFOD_URLS": "http://127.0.0.1:9",
        "DEBUGINFOD_CACHE_PATH": LOCKED,
    },
    "path": {"PATH": f"{LOCKED}:/root::relative:/usr/bin:/bin"},
}


@pytest.mark.root
@pytest.mark.parametrize("odd", ODD)
def test_every_command_works_where_folders_may_not_be_read(nobody, place, odd):
    done = nobody(
        f"cd {place}/cwd; rm -f {place}/out/*; "
        f"leakscope run -o {place}/out/ -- {place}/leaks; echo run $?; "
        f"leakscope report {place}/out; echo report $?; "
        "leakscope doctor sleep >/dev/null; echo doctor $?; "
        "leakscope doctor >/dev/null; echo doctor $?; "
        "sleep 60 & leakscope scan $!; echo scan $?; "
        "leakscope watch $! --for 0.2s >/dev/null; echo watch $?; kill $!; "
        "leakscope run -- nowhere; echo run $?",
        **ODD[odd],
    )
    assert "a bug in leakscope" not in done.stderr
    statuses = [line for line in done.stdout.splitlines() if line[-1:].isdigit() and " " in line]
    expected = ["run 1", "report 1", "doctor 0", "doctor 0", "scan 0", "watch 3", "run 2"]
    assert [
        line
        for line in statuses
        if line.split()[0] in {"run", "report", "doctor", "scan", "watch"}
        and len(line.split()) == 2
    ] == expected, done.stderr
    assert "there is no program nowhere in PATH" in done.stderr


GONE = {
    "-o {place}/out/ -- {place}/leaks": ("run", 1),
    "-- {place}/leaks": ("run", 2),
    "-- ./leaks": ("run", 2),
    "nothing": ("report", 2),
    "--report-file x {place}/nothing": ("report", 2),
    "{place}/leaks": ("doctor", 0),
}


@pytest.mark.root
@pytest.mark.parametrize("words", GONE)
def test_the_current_directory_is_gone(nobody, place, words):
    verb, status = GONE[words]
    done = nobody(
        f"mkdir -p {place}/gone; cd {place}/gone; rmdir {place}/gone; rm -f {place}/out/*; "
        f"leakscope {verb} {words.format(place=place)}"
    )
    assert "a bug in leakscope" not in done.stderr
    assert done.returncode == status, done.stderr
    if words == "-- {place}/leaks":
        assert "the current directory is gone" in done.stderr


def test_four_runs_with_one_name_keep_each_others_files(leakscope, place, tmp_path):
    """At the same time, and after one another; each says which name it used."""
    output = tmp_path / "out.leakscope"

    def run(_):
        return leakscope("run", "--no-report", "-o", output, "--", place / "leaks")

    with ThreadPoolExecutor(4) as pool:
        done = [*pool.map(run, range(4)), run(4)]
    files = sorted(tmp_path.iterdir())
    assert len(files) == 5, files
    named = {Path(each.stderr.split("recording: ")[1].strip()).name for each in done}
    assert named == {path.name for path in files}
    pids = set()
    for path in files:
        document = json.loads(leakscope("report", "--json", path).stdout)
        pids.add(document["processes"][0]["process"]["pid"])
    assert len(pids) == 5


def test_an_ordinary_user_gets_the_kernels_sums_and_is_told_what_root_would_see(nobody):
    said = nobody("leakscope kernel")
    assert (said.returncode, said.stderr) == (0, "")
    assert "root sees more: sudo leakscope kernel" in said.stdout
    assert "! slabinfo" in said.stdout
    refused = nobody("leakscope kernel scan")
    assert refused.returncode == 2
    assert "kmemleak cannot be used" in refused.stderr
