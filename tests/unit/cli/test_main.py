# SPDX-License-Identifier: Apache-2.0
"""The command line as a whole: help, versions, mistakes, bugs, closed pipes, start-up time."""

import os
import subprocess
import sys
import types

import pytest

from leakscope import cli
from leakscope.cli import COMMANDS, main
from leakscope.errors import TargetError

# What a user's shell has: our package, and standard output with a buffer.
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": ""}


@pytest.fixture
def command(monkeypatch):
    """Register a command `probe` that does what the test sets as `module.run`."""
    module = types.ModuleType("probe_command")
    module.HELP = "Probe."
    module.configure = lambda parser: parser.add_argument("--flag", action="store_true")
    module.run = lambda args: 0
    monkeypatch.setitem(sys.modules, "probe_command", module)
    monkeypatch.setattr(
        cli, "COMMANDS", (*COMMANDS, cli.Command("probe", "probes", "probe_command"))
    )
    return module


def raising(error):
    def run(_args):
        raise error

    return run


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["help"]])
def test_help_lists_every_command(arguments, capsys):
    assert main(arguments) == 0

    out = capsys.readouterr().out
    for each in COMMANDS:
        assert each.line in out


@pytest.mark.parametrize("name", [each.name for each in COMMANDS])
def test_each_command_in_the_table_exists_and_has_help(name, capsys):
    assert main([name, "--help"]) == 0

    assert f"leakscope {name}" in capsys.readouterr().out


def test_help_for_a_command_is_its_help(command, capsys):
    assert main(["help", "probe"]) == 0
    assert "--flag" in capsys.readouterr().out


def test_the_version_is_one_line(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("leakscope ")


def test_the_status_of_a_command_is_ours(command):
    command.run = lambda args: 7 if args.flag else 0

    assert main(["probe"]) == 0
    assert main(["probe", "--flag"]) == 7


def test_an_error_is_one_sentence_and_a_hint(command, capsys):
    command.run = raising(TargetError("pid 7 is gone", hint="Start it again."))

    assert main(["probe"]) == 2

    shown = capsys.readouterr()
    assert shown.err == "leakscope: pid 7 is gone\n  Start it again.\n"
    assert shown.out == ""


def test_an_error_cannot_reach_the_terminal(command, capsys):
    command.run = raising(TargetError("no \x1b[2J file", hint="try\n\x07"))

    assert main(["probe"]) == 2
    assert capsys.readouterr().err == "leakscope: no \\x1b[2J file\n  try\\n\\x07\n"


def test_a_bug_is_not_taken_for_a_leak(command, capsys):
    command.run = raising(KeyError("site"))

    assert main(["probe"]) == 2

    err = capsys.readouterr().err
    assert "a bug in leakscope stopped it: KeyError: 'site'" in err
    assert "Traceback" not in err


def test_a_traceback_is_shown_on_request_only(command, capsys, monkeypatch):
    monkeypatch.setenv("LEAKSCOPE_DEBUG", "1")
    command.run = raising(TargetError("pid 7 is gone"))

    assert main(["probe"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_interrupted_is_130_and_silent(command, capsys):
    command.run = raising(KeyboardInterrupt())

    assert main(["probe"]) == 130
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("repotr", "Did you mean `leakscope report`?"),
        (sys.executable, f"To trace a program: leakscope run -- {sys.executable}"),
        ("1234", "leakscope find 1234"),
        ("x" * 10_000, "`leakscope --help` lists the commands."),
    ],
)
def test_a_word_that_is_no_command_gets_a_next_step(name, hint, capsys):
    assert main([name]) == 2
    assert hint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said", "hint"),
    [
        (["--nonsense"], "there is no option --nonsense", "`leakscope --help`"),
        (["scan", "1", "--maxpause", "3"], "no option --maxpause", "Did you mean --max-pause?"),
        (["scan", "1", "--maxpause=3"], "no option --maxpause", "Did you mean --max-pause?"),
        (["kernel", "watch", "--fro", "3"], "no option --fro", "Did you mean --for?"),
        (["android", "watch", "x", "--app", "y"], "no option --app", "  `leakscope android watch"),
        (["report"], "leakscope report needs FILE", "`leakscope report --help`"),
        (["report", "x", "--limit"], "--limit needs a value", "`leakscope report --help`"),
        (["report", "x", "--limit", "y"], "--limit: 'y' is not a whole number", "--help"),
        (["scan", "1", "2"], "'2' is one argument too many", "`leakscope scan --help`"),
        (["export", "x", "--to", "sarrif"], "'sarrif' is none of pprof", "Did you mean sarif?"),
        (["kernel", "scn"], "'scn' is none of state, watch, scan", "Did you mean scan?"),
        (["android"], "needs VERB: one of doctor", "`leakscope android --help`"),
        (["--apart", "3h"], "--apart: '3h' is no time", "`leakscope --help`"),
    ],
)
def test_wrong_arguments_are_one_sentence_and_a_next_step(arguments, said, hint, capsys):
    assert main(arguments) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("leakscope: ")
    assert said in first
    assert hint in second


def test_options_without_a_command_are_those_that_help_shows(capsys):
    assert main(["--help"]) == 0
    assert "--apart SECONDS" in capsys.readouterr().out
    assert main(["--apart", "0.2", "--json"]) == 0
    assert capsys.readouterr().out.startswith("{")


def test_a_reader_that_leaves_early_is_no_complaint():
    process = subprocess.Popen(
        [sys.executable, "-m", "leakscope", "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
        text=True,
    )
    process.stdout.close()

    err = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), err) == (141, "")


def test_help_loads_few_modules():
    """What makes a start slow is what it loads; that does not depend on what else runs here."""
    program = (
        "import sys; before = len(sys.modules); from leakscope.cli import main; main(['--help']);"
        "print(len(sys.modules) - before, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
        text=True,
        check=True,
    )

    assert int(done.stderr) < 80


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["report", "--help"]])
def test_nothing_heavy_is_loaded_to_show_help(arguments):
    program = (
        "import sys; from leakscope.cli import main; main(sys.argv[1:]);"
        "heavy = {'numpy', 'rich', 'drgn'} & set(sys.modules); sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
