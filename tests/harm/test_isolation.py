# SPDX-License-Identifier: Apache-2.0
"""Whoever reads as root runs nobody else's code, and quotes nothing that its author may not read."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from leakscope.model.frames import Address, Frame, Origin
from leakscope.proc.isolated import module_command, module_environment
from leakscope.proc.rights import open_named
from leakscope.symbols import source_context

NOBODY = 65534
SOURCES = Path(__file__).parents[2] / "src"
TRAPS = (
    "json",
    "numpy",
    "base64",
    "struct",
    "runpy",
    "elftools",
    "drgn",
    "sitecustomize",
    "leakscope",
)
# As the installed command starts it, and without drgn, so that the reader in Python runs too.
COMMAND = """
import sys
import leakscope.symbols._lines as lines
lines.has_drgn = lambda: False
from leakscope.cli import main
sys.exit(main())
"""


@pytest.fixture
def shared():
    """A folder that everybody may enter; pytest's own are private."""
    with tempfile.TemporaryDirectory(prefix="leakscope-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def hostile(shared):
    """A folder of somebody else's with modules in it that tell when they were run."""
    folder = shared / "hostile"
    for name in TRAPS:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(
            f"open({str(shared / 'sprung')!r}, 'a').write({name!r})\nraise ImportError('a trap')\n"
        )
    return folder


def test_no_code_is_taken_from_the_current_folder(hostile, build, alone, leakscope, tmp_path):
    program = build("shadow")
    assert leakscope("run", "--no-report", "-o", tmp_path / "r", "--", program).status == 0
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        for words in (
            ["report", tmp_path / "r"],
            ["watch", sleeper.pid, "--heap", "--for", "0.2s"],  # scans as well
        ):
            command = [sys.executable, "-P", "-c", COMMAND, *map(str, words)]
            done = alone(
                *command,
                cwd=hostile,
                env=os.environ | {"PYTHONPATH": str(SOURCES), "HOME": str(tmp_path)},
            )
            assert done.status in (0, 1, 3), done.stderr  # 3: too short to tell
            assert not (hostile.parent / "sprung").exists(), (
                words[0] + (hostile.parent / "sprung").read_text()
            )
    finally:
        sleeper.kill()
        sleeper.wait()


def test_a_python_of_ours_sees_nothing_of_the_callers_environment(hostile, monkeypatch):
    monkeypatch.chdir(hostile)
    monkeypatch.syspath_prepend(str(hostile))
    for name, value in {
        "PYTHONPATH": str(hostile),
        "PYTHONSTARTUP": "x.py",
        "LD_PRELOAD": "./x.so",
        "LD_LIBRARY_PATH": ":/usr/lib:lib",
        "GCONV_PATH": ".",
    }.items():
        monkeypatch.setenv(name, value)

    given = module_environment()
    done = subprocess.run(
        module_command("leakscope.proc.isolated"),
        env=given,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert not (hostile.parent / "sprung").exists()
    assert given["LD_LIBRARY_PATH"] == "/usr/lib"
    assert not {"PYTHONPATH", "PYTHONSTARTUP", "LD_PRELOAD", "GCONV_PATH"} & given.keys()


@pytest.mark.root
@pytest.mark.parametrize("level", ["O0", "O2"])
def test_a_file_that_its_author_may_not_read_is_not_quoted(level, build, leakscope, shared):
    """Debug information of nobody's program says that its source is /etc/shadow."""
    program = shared / "shadow"
    program.write_bytes(build("shadow", level).read_bytes())
    program.chmod(0o755)
    os.chown(program, NOBODY, NOBODY)
    secret = [line for line in Path("/etc/shadow").read_text().splitlines() if line]
    for words in (
        ["run", "-o", shared / "r", "--", program],
        ["report", shared / "r"],
        ["report", "--json", "--verbose", shared / "r"],
    ):
        done = leakscope(*words)
        assert "/etc/shadow" in done.stdout + done.stderr
        assert not [line for line in secret if line in done.stdout + done.stderr]


@pytest.mark.root
def test_what_the_author_may_read_is_quoted(leakscope, shared):
    source = shared / "open.c"
    source.write_text(
        "#include <stdlib.h>\nvoid *volatile p;\n"
        "int main(void) { for (int i = 0; i < 999; i++)\n p = malloc(100); /* seen */\n return 0; }\n"
    )
    subprocess.run(["gcc", "-g", source, "-o", shared / "open"], check=True)
    os.chown(shared / "open", NOBODY, NOBODY)

    assert leakscope("run", "--no-report", "-o", shared / "r", "--", shared / "open").status == 0
    assert "/* seen */" in leakscope("report", shared / "r").stdout
    source.chmod(0o600)
    assert "/* seen */" not in leakscope("report", shared / "r").stdout


@pytest.mark.root
def test_the_kernel_decides_what_an_author_may_read(shared):
    locked = shared / "locked"
    locked.mkdir(mode=0o700)
    for folder in (shared, locked):
        (folder / "file").write_text("text\n")
        (folder / "file").chmod(0o644)
    (shared / "link").symlink_to(locked / "file")

    os.close(open_named(str(shared / "file"), [NOBODY]))
    os.close(open_named(str(shared / "link"), [0]))
    for name in ("link", "locked/file"):
        with pytest.raises(PermissionError):
            open_named(str(shared / name), [NOBODY])
    os.close(open_named(str(shared / "link")))  # our own rights are as before


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", "/dev/zero", tmp_path):
        with pytest.raises(OSError, match="not a regular file"):
            open_named(str(path))


def test_no_link_leads_out_of_another_root_directory(tmp_path):
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/passwd").write_text("theirs\n")
    (root / "absolute").symlink_to("/etc/passwd")
    (root / "climbing").symlink_to("../../../../../../../etc/passwd")
    for name in ("absolute", "climbing", "etc/../../../etc/passwd"):
        fd = open_named(f"/{name}", root=str(root))
        try:
            assert os.read(fd, 100) == b"theirs\n"
        finally:
            os.close(fd)


def test_what_is_no_text_is_not_shown(tmp_path):
    (tmp_path / "data").write_bytes(b"a\nb\0\nc\n")
    frame = Frame(Address(None, 0), file=str(tmp_path / "data"), line=1, origin=Origin())
    assert source_context(frame) == []
