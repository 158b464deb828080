# SPDX-License-Identifier: Apache-2.0
"""What a program starts stays traced whatever is done to its environment and user, or is named."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parents[1] / "programs"
LEVELS = {"O0": ["-O0"], "O2": ["-O2", "-fno-builtin-malloc"]}


@pytest.fixture
def compiled():
    """Build a program of tests/programs into a folder that every user may enter."""
    with tempfile.TemporaryDirectory(prefix="leakscope-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)

        def build(source, *flags, name=None, level="O0"):
            program = folder / (name or Path(source).stem)
            command = ["gcc", "-g", "-w", *LEVELS[level], *flags, PROGRAMS / source]
            subprocess.run([*command, "-o", program], check=True)
            return program

        yield build


def programs(traced) -> Counter[str]:
    return Counter(Path(each["process"]["executable"]).name for each in traced.report["processes"])


def lost(traced) -> Counter[str]:
    """Lost bytes by program."""
    found: Counter[str] = Counter()
    for each in traced.report["processes"]:
        for finding in each["findings"]:
            if finding["verdict"] == "lost":
                found[Path(each["process"]["executable"]).name] += finding["live_bytes"]
    return found


@pytest.mark.parametrize("level", LEVELS)
def test_a_start_script_that_preloads_an_allocator(trace, compiled, level):
    script = PROGRAMS / "cases/own_preload/start.sh"
    app = compiled("cases/own_preload/app.c", level=level)

    traced = trace(["sh", script], cwd=app.parent)

    assert traced.stdout == "app done\nserver ended with 5\n"
    assert traced.returncode == 1, traced.stderr
    assert lost(traced)["app"] == 6000


def test_every_way_to_start_a_program_keeps_the_agent(trace, compiled):
    program = compiled("harm/starts.c")
    alone = subprocess.run([program, program], capture_output=True, text=True, check=True)

    traced = trace([program, program])

    assert traced.stdout == alone.stdout
    assert alone.stderr in traced.stderr
    assert "not traced" not in traced.stderr
    assert programs(traced) == {"starts": 15}


def test_what_has_no_agent_is_named_at_every_level_with_the_reason(trace, compiled):
    static = compiled("harm/starts.c", "-static", name="static")
    dynamic = compiled("harm/starts.c", name="dynamic")
    script = f"env -i {dynamic}; (env -i sh -c 'exec {static}'); (unset LD_PRELOAD; {static}); true"

    traced = trace(["sh", "-c", script])

    assert traced.returncode in (1, 2), traced.stderr  # 1: a shell may leak
    assert f"{static} was not traced (2 processes): {static} is statically linked" in traced.stderr
    assert "dynamic was not" not in traced.stderr
    assert programs(traced)["dynamic"] == 1


def test_a_program_that_begins_under_a_filter_is_named_with_that_reason(trace, compiled):
    program = compiled("harm/sealexec.c")

    traced = trace([program, program])

    assert traced.program["process"]["executable"] == str(program)
    assert "sealexec exited with status 5" in traced.stderr
    assert f"{program} was not traced: it began under a system call filter" in traced.stderr
    assert traced.returncode == 5  # the program's own


def test_an_empty_environment_from_python_and_a_shim_that_execs(trace, compiled, tmp_path):
    program = compiled("harm/starts.c")
    shim = tmp_path / "shim"
    shim.write_text(f'#!/bin/bash\nexport LD_PRELOAD=\nexec "{program}"\n')
    shim.chmod(0o755)
    code = f"import subprocess; print(subprocess.run(['{shim}'], env={{}}).returncode)"

    traced = trace([sys.executable, "-c", code])

    assert traced.stdout == "7\n"
    assert "not traced" not in traced.stderr
    assert programs(traced)["starts"] == 1


def test_a_large_environment_and_a_long_preload_are_left_alone(trace, compiled):
    """There is no room to mend them; the program gets what it was given, and is named."""
    program = compiled("harm/starts.c")
    code = (
        "import os, subprocess\n"
        f"names = {{f'V{{n}}': str(n) for n in range(2000)}}\n"
        "print(subprocess.run(['env'], env=names, capture_output=True).stdout.count(b'\\n'))\n"
        f"print(subprocess.run(['{program}'], env=names).returncode)\n"
    )

    traced = trace([sys.executable, "-c", code])

    assert traced.stdout == "2000\n7\n"
    assert traced.returncode == 2
    assert f"{program} was not traced" in traced.stderr


@pytest.mark.root
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", ["drop", "nodrop"])
def test_a_program_that_becomes_nobody_stays_traced(trace, compiled, name, level):
    program = compiled(f"harm/{name}.c", level=level)

    traced = trace([f"./{name}"], cwd=program.parent)

    user = 65534 if name == "drop" else 0
    assert f"exec'd uid {user} done\nexec 500\n" in traced.stdout
    assert "not traced" not in traced.stderr
    assert programs(traced) == {name: 3}
    bytes_lost = sorted(
        sum(finding["live_bytes"] for finding in each["findings"] if not finding["known"])
        for each in traced.report["processes"]
    )
    assert bytes_lost[0] >= 777_000, traced.report


@pytest.mark.root
@pytest.mark.parametrize(
    "by",
    [
        ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups"],
        ["runuser", "-u", "nobody", "--"],
        ["setpriv", "--reuid", "nobody", "--clear-groups", "env", "-i"],
    ],
)
def test_programs_that_change_the_user(trace, compiled, by):
    program = compiled("cases/own_preload/app.c")

    traced = trace([*by, program])

    assert traced.returncode == 1, traced.stderr
    assert lost(traced)["app"] == 6000


@pytest.mark.root
def test_another_root_directory_is_named(trace, compiled, tmp_path):
    program = compiled("cases/own_preload/app.c")
    source = tmp_path / "jailed.c"
    source.write_text(
        "#include <stdlib.h>\n#include <unistd.h>\n#include <sys/wait.h>\n"
        f'int main(void) {{ if (chroot("{program.parent}") || chdir("/")) return 3;\n'
        "if (!fork()) { void *volatile p = malloc(9); (void)p; _exit(0); } wait(0); return 0; }\n"
    )
    subprocess.run(["gcc", "-w", source, "-o", tmp_path / "jailed"], check=True)

    traced = trace([tmp_path / "jailed"])

    assert traced.returncode == 2
    assert "jailed forked what was not traced" in traced.stderr


@pytest.mark.root
def test_processes_with_the_same_number_in_two_namespaces(leakscope, tmp_path):
    """One ends, one runs on: neither is taken for the other."""
    program = tmp_path / "pidns"
    subprocess.run(["gcc", "-g", "-w", PROGRAMS / "harm/pidns.c", "-o", program], check=True)
    script = f"unshare -pf {program} 1 A & sleep 0.3; unshare -pf {program} 90 B >/dev/null 2>&1 & sleep 2"

    done = leakscope("run", "-o", f"{tmp_path}/", "--", "sh", "-c", script, timeout=60)

    assert "A pid 1 allocated 200" in done.stdout
    assert "replaced by exec" not in done.stderr
    running = re.findall(r"process (\d+) still runs .* (/\S+\.live)", done.stderr)
    inner = [(int(pid), Path(path)) for pid, path in running if "/1." in path]
    assert len(inner) == 1, done.stderr
    pid, path = inner[0]
    try:
        assert Path(f"/proc/{pid}/exe").resolve() == program
        assert "still running" in leakscope("report", pid).stdout
        assert len(list(tmp_path.glob("pidns.*.leakscope"))) == 1
    finally:
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert "still running" not in leakscope("report", path).stdout
    folder = path.parents[1]
    assert folder.parent == Path("/dev/shm")
    assert folder.name.startswith("leakscope-")
    shutil.rmtree(folder)


ENVIRONMENT = """
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
extern char **environ;
int main(int c, char **v) {
  static char *mine[] = {"PATH=/usr/bin:/bin", "FIRST=1", "SECOND=two words", 0};
  environ = mine;
  char *arguments[] = {"env", 0};
  if (c > 1) execvp("env", arguments);
  execv("/usr/bin/env", arguments);
}
"""


@pytest.mark.parametrize("way", [(), ("execvp",)], ids=["execv", "execvp"])
@pytest.mark.parametrize("linked", [(), ("-no-pie",)], ids=["pie", "no-pie"])
def test_an_environment_that_the_program_made_reaches_the_next_one(trace, tmp_path, way, linked):
    (tmp_path / "made.c").write_text(ENVIRONMENT)
    command = ["gcc", "-w", *linked, tmp_path / "made.c", "-o", tmp_path / "made"]
    subprocess.run(command, check=True)
    traced = trace([tmp_path / "made", *way])
    lines = [line for line in traced.stdout.splitlines() if not line.startswith(("LD_", "LEAKS"))]
    assert lines == ["PATH=/usr/bin:/bin", "FIRST=1", "SECOND=two words"]


def test_what_a_script_exports_reaches_what_it_starts(trace, tmp_path):
    script = tmp_path / "script.sh"
    script.write_text(
        "#!/usr/bin/env bash\nexport PATH=/opt/nowhere:$PATH MARK=yes\nexec env\n", encoding="utf-8"
    )
    script.chmod(0o755)
    traced = trace([script])
    assert "MARK=yes" in traced.stdout
    assert "\nPATH=/opt/nowhere:" in f"\n{traced.stdout}"


def test_a_program_that_becomes_others_one_after_the_other_is_told_as_the_last(trace, compiled):
    """The recordings of those before are packed meanwhile, and their names are given again."""
    app = compiled("cases/own_preload/app.c")
    # So many ended children that they are packed while it runs, and the first shell with them.
    forks = "for n in 1 2 3 4 5 6 7; do for m in 0 1 2 3 4 5 6 7 8 9; do (:); done; done"

    traced = trace(["sh", "-c", f"exec sh -c '{forks}; sleep 1.5; exec {app}'"])

    assert "not traced" not in traced.stderr
    assert lost(traced)["app"] == 6000
    (process,) = (
        each["process"]
        for each in traced.report["processes"]
        if each["process"]["executable"].endswith("app")
    )
    assert (process["ended"], process["exit_status"]) == ("exited", 5)
    ends = Counter(
        each["process"]["ended"]
        for each in traced.report["processes"]
        if each["process"]["pid"] == process["pid"]
    )
    assert ends == {"replaced by exec": 2, "exited": 1}
