# SPDX-License-Identifier: Apache-2.0
"""The report in the terminal: golden texts, hostile names, any width, colour or not."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leakscope.model.findings import Verdict
from leakscope.model.frames import Address
from leakscope.model.recordings import Coverage, Process
from leakscope.report.terminal import render, render_brief
from leakscope.report.text import cells
from unit.report.built_findings import (
    BOUNDED,
    FILLING,
    KNOWN,
    STACK,
    SUPPRESSION,
    UNKNOWN,
    finding,
    findings,
    frame,
    source,
)

GOLDEN = Path(__file__).parent / "golden"
TROUBLED = Coverage(
    alloc_events=1_234_567,
    free_events=1_200_000,
    dropped={"table_full": 17, "stack_truncated": 3, "filtered": 20},
    min_size=100,
    notes=("blocks from before attach are not known",),
)
EVERYTHING = findings(
    finding(),
    FILLING,
    UNKNOWN,
    BOUNDED,
    KNOWN,
    suppressions=(SUPPRESSION,),
    coverage=TROUBLED,
    notes=("no debug information for libevent-2.1.so.7",),
)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("everything-80.txt", {"width": 80}),
        ("everything-40-ascii.txt", {"width": 40, "unicode": False}),
        ("everything-200.txt", {"width": 200, "show_known": True, "verbose": True}),
        ("everything-80-colour.txt", {"width": 80, "colour": True}),
    ],
)
def test_the_report_is_as_it_was(name, options):
    text = render(EVERYTHING, source_context=source, base="/src", **options)

    assert text == (GOLDEN / name).read_text(encoding="utf-8")


def test_a_clean_run_says_so_in_few_lines():
    text = render(findings())

    assert text == (GOLDEN / "clean.txt").read_text(encoding="utf-8")


def test_colour_changes_nothing_but_colour():
    plain = render(EVERYTHING, source_context=source)
    coloured = render(EVERYTHING, source_context=source, colour=True)

    assert _COLOUR.sub("", coloured) == plain
    assert "\x1b" not in plain
    assert "\x1b[1;31m" in coloured


def test_the_verdict_is_first_and_again_last_in_a_long_report():
    lines = render(EVERYTHING).splitlines()

    assert lines[0] == lines[-1] == f"leakscope: {EVERYTHING.headline}"
    assert render(findings()).count("leakscope:") == 1


EVIL = "\x1b]0;owned\x07\x1b[2J\nevil\r\x9b31m\u202e\udc80"


def test_hostile_names_cannot_reach_the_terminal():
    evil_frame = frame(EVIL, f"/tmp/{EVIL}.c", 3, module_path=f"/lib/{EVIL}.so")
    hostile = findings(
        finding(
            kind=EVIL,
            sentence=f"{EVIL} leaks",
            next_step=EVIL,
            stack=(evil_frame, replace(evil_frame, function=None, file=None)),
            source=evil_frame,
            evidence=(replace(finding().evidence[0], text=EVIL),),
            fingerprint=EVIL,
        ),
        replace(BOUNDED, known=EVIL),
        process=Process(pid=1, exe=f"/bin/{EVIL}", ended=EVIL),
        coverage=Coverage(mode=EVIL, dropped={EVIL: 1}, troubles=(EVIL,), notes=(EVIL,)),
        headline=EVIL,
        suppressions=(replace(SUPPRESSION, name=EVIL, source=EVIL),),
        notes=(EVIL,),
    )

    def context(_frame, _radius):
        return [(2, EVIL), (3, "\x1b[31m malloc(1)\n"), (4, "")]

    for options in ({}, {"show_known": True, "verbose": True}):
        text = render(hostile, source_context=context, **options)
        for line in text.split("\n"):
            assert line.isprintable(), line
        assert "\\x1b[31m malloc(1)" in text
    assert all(line.isprintable() for line in render_brief(hostile).split("\n"))


@pytest.mark.parametrize("width", [40, 80, 120, 200])
@pytest.mark.parametrize("unicode", [True, False])
def test_only_the_path_of_the_leaking_line_may_be_wider_than_the_terminal(width, unicode):
    long = frame("very::" * 60 + "deep<int>(std::vector<char>)", "/very" * 60 + "/deep.cc", 7)
    wide = frame("漢字" * 40, "/漢字" * 30 + ".c", 8)
    text = render(
        findings(
            finding(source=long, stack=(wide, long, *STACK)),
            *(finding(source=frame(f"f{n}", "/a/b.c", n), fingerprint=f"{n}") for n in range(1, 5)),
            UNKNOWN,
            BOUNDED,
            coverage=TROUBLED,
        ),
        width=width,
        unicode=unicode,
        show_known=True,
        source_context=lambda frame, radius: [(frame.line, "x" * 500)],
    )

    wider = [line for line in text.split("\n") if cells(line) > width]
    assert wider == [f"   at {long.file}:7"]


def test_only_the_heaviest_of_a_thousand_are_shown_in_full():
    many = findings(
        *(
            finding(
                source=frame(f"leak_{n}", f"/src/{n}.c", n + 1),
                live_bytes=1_000_000 - n,
                live_count=1,
            )
            for n in range(1000)
        )
    )

    text = render(many, limit=3)

    shown = [int(n) for n in re.findall(r"in leak_(\d+) at", text)]
    assert shown == [0, 1, 2]
    assert "997 more leaking places hold 950 MiB; --limit 1000 shows all" in text
    assert "more leaking" not in render(many, limit=1000)


def test_stacks_through_the_same_line_are_one_place():
    text = render(
        findings(
            finding(live_bytes=3000, live_count=3, rate=None),
            finding(live_bytes=1000, live_count=1, rate=None, stack=STACK[:1] + STACK[4:]),
        )
    )

    assert text.count("LEAKING") == 1
    assert "3.9 KiB in 4 blocks" in text
    assert "   called from\n     2.9 KiB in 3 blocks  remember  /src/app/cache.c:60\n" in text
    assert "     1,000 B in 1 block  main  /src/app/main.c:17\n" in text
    assert "of the heaviest stack, 3 of the 4 blocks:" in text


def test_a_long_stack_is_cut_in_the_middle_unless_verbose():
    stack = tuple(frame(f"f{n}", "/src/a.c", n + 1) for n in range(40))
    deep = findings(finding(stack=stack, source=stack[0]))

    text = render(deep)

    assert "#6  f6 " in text
    assert "#7  f7 " not in text
    assert "30 more frames, shown with --verbose" in text
    assert "#37 f37" in text
    assert "#20 f20" in render(deep, verbose=True)


def test_start_up_code_below_main_is_left_out_unless_verbose():
    assert "__libc_start_call_main" not in render(findings(finding()))
    assert "__libc_start_call_main" in render(findings(finding()), verbose=True)


def test_what_is_quiet_is_counted_and_shown_on_request():
    quiet = findings(BOUNDED, KNOWN)

    assert "Not shown: 1 bounded (4.0 KiB), 1 kept by libraries (71.0 KiB)" in render(quiet)
    shown = render(quiet, show_known=True)
    assert "Bounded: 1 site, 4.0 KiB live" in shown
    assert "Quiet, libc one-off: 1 site, 71.0 KiB live" in shown
    assert "Not shown" not in shown


def test_a_suppressed_leak_is_not_reported_as_one():
    text = render(findings(finding(known="suppressed: leak:make_entry")))

    assert "LEAKING" not in text
    assert "1 suppressed" in text


@pytest.mark.parametrize(
    ("dropped", "warning"),
    [
        ({"table_full": 1}, "warning: 1 block was not recorded: the table of live blocks"),
        ({"no_space": 1204}, "warning: 1,204 events were lost: no room left"),
        ({"brand_new_reason": 2}, "warning: 2 events were lost (brand new reason)"),
    ],
)
def test_a_loss_that_can_make_the_verdict_wrong_is_said_at_the_top(dropped, warning):
    text = render(findings(coverage=Coverage(dropped=dropped)))

    assert warning in "\n".join(text.splitlines()[:4])


def test_harmless_limits_are_no_warnings():
    text = render(findings(coverage=Coverage(dropped={"filtered": 9, "failed_allocation": 1})))

    assert "warning" not in text
    assert "not recorded: 9 allocations outside the requested sizes" in text
    assert "0 dropped" in text


def test_a_program_with_its_own_malloc_is_a_warning():
    text = render(findings(coverage=Coverage(troubles=("own_malloc",))))

    assert "warning: the program defines malloc itself" in text


def test_a_sampled_recording_shows_its_period_and_its_interval():
    text = render(
        findings(
            finding(live_bytes_low=9_000_000, live_bytes_high=12_000_000),
            coverage=Coverage(mode="sampled", sample_bytes=524_288),
        )
    )

    assert "about 10.1 MiB in 10,342 blocks (8.6 to 11.4 MiB)" in text
    assert "Coverage: sampled mode, one sample in 512 KiB" in text


def test_a_finding_without_stack_or_symbols_still_has_a_place():
    bare = frame(None)
    assert "(no call stack was recorded)" in render(findings(finding(stack=(), source=None)))
    assert "   app+0x1234\n" in render(findings(finding(stack=(bare,), source=None)))


def test_paths_below_the_base_are_shown_relative_to_it():
    assert "at app/cache.c:42" in render(findings(finding()), base="/src")
    assert "at app/cache.c:42" in render(findings(finding()), base="/src/")
    assert "at /src/app/cache.c:42" in render(findings(finding()), base="/sr")


def test_confidence_is_said_in_words():
    words = [
        render(findings(finding(confidence=c, pattern=None))).split(" · ")[1].split("\n")[0]
        for c in (0.99, 0.95, 0.85, 0.6, 0.59)
    ]
    assert words == ["almost certain", "very likely", "likely", "possible", "only a suspicion"]


def test_stacks_through_one_line_are_counted_together():
    """Never "all 30 blocks" beside a sum of 60."""
    some = {"verdict": Verdict.LOST, "live_count": 30, "live_bytes": 3000}
    lost = finding(**some, lost_count=30, lost_bytes=3000, sentence="All 30 blocks are lost.")
    other = finding(**some, lost_count=10, lost_bytes=1000, unexamined_count=20)

    text = " ".join(render(findings(lost, other)).split())

    assert "3.9 KiB in 40 blocks, of 5.9 KiB in 60" in text
    assert "40 of 60 blocks from here are lost, by 2 stacks" in text
    assert "20 more were not examined" in text
    assert "All 30" not in text


def test_growth_is_a_table_without_alarm():
    grown = finding(verdict=Verdict.GROWING, pattern=None, next_step="Run it for longer.")

    text = render(findings(grown, verdict=Verdict.GROWING))

    assert "Grew until the end, as a job does that loads, works and ends: 1 site, 10.1 MiB" in text
    assert "Next: Run it for longer." in text
    assert "GROWING" not in text
    assert "almost certain" not in text


def test_a_heap_that_is_not_seen_is_said_before_the_findings():
    text = render(findings(finding(), runtimes=("a heap is not seen",)))

    assert text.index("a heap is not seen") < text.index("1. LEAKING")


def test_undecided_sites_come_with_what_would_settle_them():
    text = render(findings(UNKNOWN, verdict=Verdict.UNKNOWN))

    assert "Not enough data to judge: 1 site, 8.0 KiB live" in text
    assert "Next: Run for at least 40 s more" in text


@given(
    width=st.integers(-5, 300),
    limit=st.integers(-1, 5),
    name=st.text(max_size=80),
    size=st.integers(-(2**63), 2**64),
    rate=st.none() | st.floats(),
)
def test_any_value_renders(width, limit, name, size, rate):
    odd = finding(
        live_bytes=size,
        rate=rate,
        sentence=name,
        source=frame(name, name, 1),
        stack=(frame(name, name, 1),) * 30,
    )

    text = render(findings(odd, headline=name), width=width, limit=limit)

    assert text.endswith("\n")
    assert all(line.isprintable() for line in text.split("\n"))


def test_whatever_there_is_to_say_the_next_command_is_on_the_first_screen():
    many = [
        finding(source=frame("f", f"/src/{i}.c", i), fingerprint=f"{i:016x}") for i in range(1, 30)
    ]
    blind = tuple(f"the heap of runtime {i} is not seen from here " * 3 for i in range(4))
    drops = {"table_full": 17, "no_space": 3, "nodes_full": 5}
    text = render(
        findings(*many, runtimes=blind, coverage=Coverage(dropped=drops)),
        recording="out/app.1234.leakscope",
    )

    screen = " ".join(" ".join(text.splitlines()[:24]).split())
    assert "app (pid 1234)" in screen
    assert (
        "look at /src/1.c:1; whole stacks: leakscope report --verbose out/app.1234.leakscope"
        in screen
    )


@pytest.mark.parametrize(
    ("verdict", "ended", "mode", "next_command"),
    [
        (Verdict.GROWING, "running", "exact", "see how it goes on: leakscope watch 1234"),
        (Verdict.GROWING, "exited", "exact", "or on more input: leakscope run -- ./bin/app"),
        (Verdict.UNKNOWN, "exited", "sampled", "every allocation: leakscope run -- ./bin/app"),
        (
            Verdict.BOUNDED,
            "exited",
            "exact",
            "nothing to mend; what is held: leakscope report --all FILE",
        ),
    ],
)
def test_the_next_command_fits(verdict, ended, mode, next_command):
    process = Process(pid=1234, exe="/opt/app/bin/app", ended=ended)
    said = findings(
        finding(verdict=verdict, pattern=None),
        verdict=verdict,
        process=process,
        coverage=Coverage(mode=mode),
    )
    text = " ".join(render(said, base="/opt/app").split())
    assert next_command in text


def test_helpers_are_named_below_the_place():
    text = render(findings(finding(through=(frame("xget", "/src/x.c", 3), frame("xdup")))))

    assert "cache.c:42\n   through xdup at app+0x1234\n   through xget at /src/x.c:3\n" in text


def test_places_without_lines_are_functions():
    bare = frame("parse")
    one = finding(verdict=Verdict.LOST, lost_count=3, lost_bytes=30, source=bare, stack=(bare,))
    main = frame("main", address=Address(0, 0x99))
    other = replace(one, stack=(bare, main), live_count=9, lost_count=2, lost_bytes=20)
    leaking = replace(other, verdict=Verdict.LEAKING, live_bytes=5, sentence="More keep coming.")

    text = render(findings(one, other, leaking))

    assert text.count("LOST") == 1
    assert "LEAKING" not in text
    assert "Not lost, but not freed either: More keep coming." in " ".join(text.split())
    assert "     25 B in 11 blocks  main  app+0x99\n" in text
    assert findings(one, other, leaking).leak_places == 1


def test_a_frame_without_a_name_is_called_by_its_module_and_offset():
    bare = frame(None, entry=0x1200)
    text = render(findings(finding(stack=(bare,), source=bare)))

    assert "   app+0x1234 (function at 0x1200)\n" in text
    assert "   ▶ #0  app+0x1234\n" in text
    assert "??" not in text


def test_nothing_is_said_to_be_nothing():
    empty = findings(live_bytes=0, live_count=0, total_allocs=0, total_frees=0, total_alloc_bytes=0)
    assert "Total: no allocation was seen" in render(empty)
    freed = findings(live_bytes=0, live_count=0)
    assert "Total: nothing live at the end, peak" in render(freed)


def test_a_process_that_runs_is_named_by_its_number():
    process = Process(pid=1234, exe="/opt/app/bin/app", ended="running")
    for said in (findings(finding(), process=process), findings(BOUNDED, process=process)):
        text = render(said, recording="process 1234")
        assert re.search(r"leakscope report --(?:all|verbose) 1234$", text, re.MULTILINE)


def test_a_command_that_was_typed_is_said_again_and_what_is_not_kept_is_not_named():
    text = render(findings(BOUNDED), recording=None, command="make -j2 'a b'")

    assert "try other inputs: leakscope run -- make -j2 'a b'\n" in text
