# SPDX-License-Identifier: Apache-2.0
"""The verdict on a site in plain words, the evidence in numbers, and what to do next."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from leakscope.judge.service import Service
from leakscope.model.columns import Column
from leakscope.model.findings import Evidence, Pattern, Verdict
from leakscope.words import bytes_text, duration_text, share_text, typed_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.judge.rules import Judged
    from leakscope.model.findings import Finding
    from leakscope.model.frames import Frame
    from leakscope.model.recordings import Recording

__all__ = ["evidence", "next_step", "of_one_place", "sentence", "too_few_samples"]

_WANTED = 1000  # samples that show what holds a hundredth of all memory


_OWNED = "Fix the loss of the block that owned it; look for it among the other findings."


def of_one_place(findings: Sequence[Finding]) -> list[Finding]:
    """Let what is owned by a block of its own place have that block's next step.

    A string and its text, a list's head and its members: they are shown together.
    """
    steps = {f.place: f.next_step for f in findings if f.is_leak and f.next_step != _OWNED}
    return [
        replace(f, next_step=steps.get(f.place, _OWNED)) if f.next_step == _OWNED else f
        for f in findings
    ]


def sentence(judged: Judged, i: int, recording: Recording) -> str:
    """Say what happened at the i-th judged site, in up to three sentences."""
    text, reach = _course(judged, i, recording), judged.reach
    site = int(judged.sites[i])
    if reach is None or judged.reasons[i] in {"lost", "few samples", *_HELD}:
        return text
    possible, live = int(reach.possible[site]), int(judged.lives.survivors[site])
    if not possible:
        return text
    whole = possible == live
    them = "it" if live == 1 else "them" if whole else f"{possible:,} of them"
    they = "it" if live == 1 else "they" if whole else "these"
    return (
        f"{text} Only pointers into {them}, or addresses in another form, are left, so {they} may"
        f" be lost."
    )


def _course(judged: Judged, i: int, recording: Recording) -> str:
    """What the lives of the blocks say."""
    site = int(judged.sites[i])
    lives = judged.lives
    live, dead = int(lives.survivors[site]), int(lives.deaths[site])
    births = int(judged.births[site])
    row = recording.sites[site]
    first, last = int(row["first_birth_ns"]), int(row["last_birth_ns"])
    reason, pattern = judged.reasons[i], judged.patterns[i]
    if reason == "lost":
        return _lost(judged, site, live)
    if reason == "no stack":
        return (
            f"{_n(live, 'block')} of {births:,} whose call stack was not recorded: where they were"
            f" allocated is not known."
        )
    if reason in _HELD:
        held = int(row["live_bytes"])
        return _HELD[reason].format(
            blocks=_n(live, "block") if recording.knows(Column.LIVE_COUNT) else bytes_text(held),
            are="is" if live == 1 else "are",
            them="it" if live == 1 else "them",
            they="it" if live == 1 else "they",
        )
    if reason == "few samples":
        return (
            f"One sampled block from here is lost, of {judged.samples:,} samples in the whole run:"
            f" too few to say what it stands for."
        )
    if reason == "larger":
        sizes = judged.growth.sizes[i]
        return (
            f"{_n(live, 'block')} that grew to the end: from {bytes_text(float(sizes[0]))} to"
            f" {bytes_text(float(sizes[-1]))}, made anew {births:,} times."
        )
    if judged.verdicts[i] is Verdict.GROWING and reason == "growing":
        kept = "All" if dead == 0 else f"{live:,} of"
        return (
            f"{kept} {births:,} blocks allocated here stayed, and their number grew until"
            f" {'now' if _runs(recording) else 'the end'}, as it does in a job that loads, works and ends."
        )
    if reason == "growing":
        if pattern is Pattern.OCCASIONAL:
            return (
                f"Most blocks from here are freed, but {_n(live, 'block')} of {births:,} stayed,"
                f" a few from every part of the run: a rare path forgets them."
            )
        if dead == 0:
            return (
                f"All {births:,} blocks allocated here are still there, and more keep coming:"
                f" nothing frees them."
            )
        return (
            f"{_n(live, 'block')} of {births:,} stayed, from every part of the run, and more keep"
            f" coming: old ones are not freed."
        )
    if reason == "given back":
        peak = int(judged.growth.counts[i].max(initial=0))
        return f"Grew until the program's end, to {_n(peak, 'block')}, and was freed only there" + (
            ": in a longer run it would have grown on."
            if judged.verdicts[i] is Verdict.LEAKING
            else ", as in a job that loads, works and ends."
        )
    if reason == "filling":
        return (
            f"Still growing, but ever more slowly: births at the end come at {share_text(judged.slowdown[i])}"
            f" of the rate at the start. It looks like a table that fills up."
        )
    if reason == "stopped":
        return (
            f"Grew until {duration_text(last)} and has not grown in the {duration_text(judged.end_ns - last)} since:"
            f" set up once and kept."
        )
    if reason in {"single", "fixed", "early few"}:
        verb = "Allocated" if judged.samples is None else "Sampled"
        return f"{verb} {_times(births)}, {_when(first, last)}, and kept."
    if reason == "burst":
        return (
            f"All {births:,} were allocated within {duration_text(last - first)}, {_when(first, last)};"
            f" none came before or after."
        )
    if reason == "in flight":
        return (
            f"Blocks from here live briefly ({births:,} births, {dead:,} deaths); these are the"
            f" ones in use at this moment."
        )
    if reason in {"turnover", "level"}:
        return (
            f"A cache or pool: {births:,} blocks came and {dead:,} went, and the number held stays"
            f" the same."
        )
    if reason == "reachable":
        left = f"{_n(live, 'block')} of {births:,} not freed"
        when = f"when the program ended after {duration_text(judged.end_ns)}."
        if judged.reach is not None and judged.reach.possible[site]:
            return f"{left} {when}"
        return f"{left}; all of them were still in use {when}"
    if reason == "no time":
        return (
            f"The work in this run of {duration_text(judged.end_ns)} was too short to tell growth from start-up"
            f" ({_n(live, 'block')} of {births:,} not freed)."
        )
    if reason == "few":
        return f"{_n(live, 'block')} of {births:,} not freed: too few to see a course over time."
    if reason == "only survival":
        return (
            f"{_n(live, 'block')} of {births:,} have outlived the others, but their number does not"
            f" keep growing: a suspicion, no proof."
        )
    if reason == "only trend":
        return (
            f"The number of blocks grows, but old ones still die ({dead:,} of {births:,} freed):"
            f" it may be load that grows, or a leak that only just began."
        )
    return f"{_n(live, 'block')} of {births:,} not freed; neither their ages nor their number tell why."


_HELD = {
    "pointed to": "{blocks} not freed, but something still points to {them}.",
    "possibly lost": (
        "{blocks} not freed: only pointers to places inside {them} are left, so {they} may be lost."
    ),
    "held": (
        "{blocks} {are} held. This source does not tell when {they} came, how long others lived,"
        " or what points to {them}."
    ),
}
"""By reason of a judgement without lifetimes."""


def _lost(judged: Judged, site: int, live: int) -> str:
    reach = judged.reach
    assert reach is not None
    lost = int(reach.lost[site])
    indirect = int(reach.indirect[site])
    of = f"All {lost:,}" if lost == live and lost > 1 else f"{lost:,} of {live:,}"
    kind = "blocks" if judged.samples is None else "sampled blocks"
    text = f"{of} {kind} from here {'is' if lost == 1 else 'are'} lost"
    if live == 1:
        text = f"The {kind[:-1]} allocated here is lost"
    if not site:
        text = text.replace("from here", "whose call stack was not recorded")
        text = text.replace("allocated here", "whose call stack was not recorded")
    if indirect == lost:
        text += f": only other lost blocks point to {'it' if lost == 1 else 'them'}."
    else:
        text += f": nothing points to {'it' if lost == 1 else 'them'} any more."
    unknown = int(reach.unknown[site])
    return f"{text} {unknown:,} more were not examined." if unknown else text


def next_step(
    judged: Judged, i: int, source: Frame | None, *, attached: bool = False
) -> str | None:
    """Say what to do about the i-th judged site; None when there is nothing to do.

    `attached`: recording began while the program ran.
    """
    verdict, reason = judged.verdicts[i], judged.reasons[i]
    site = int(judged.sites[i])
    where = _place(source)
    if not site and attached:
        return (
            "These were there before leakscope was attached: if they go on to be lost, what is lost"
            " from now on has a place. A restart under `leakscope run` shows the rest."
        )
    if not site:
        return (
            "Run with a smaller --depth, so that fewer stacks differ, or with --sample: then what is"
            " allocated later has a place as well."
        )
    if reason == "lost":
        if judged.reach is not None and judged.reach.indirect[site] == judged.reach.lost[site]:
            return _OWNED
        return f"Free the block allocated {where} before its last pointer goes."
    if verdict is Verdict.GROWING:
        longer = duration_text(max(1_800_000_000_000, 4 * judged.end_ns))
        return (
            f"In a job this is its work. If it serves, trace it for {longer} or more under load; or"
            f" run it twice on one input, once for longer: what grows with time and not with the"
            f" input is a leak."
        )
    if reason in {"given back", "larger"}:
        return f"Bound what is allocated {where}, or free entries when they are no longer needed."
    if verdict is Verdict.LEAKING:
        if judged.patterns[i] is Pattern.OCCASIONAL:
            return f"Follow the block from {where.removeprefix('in ')} along its error and early-return paths."
        return f"Free what is allocated {where} when its user is done, or bound the container that keeps it."
    if verdict is Verdict.FILLING:
        return "Run longer: it is a leak if it does not level off."
    if verdict is not Verdict.UNKNOWN:
        return None
    births = int(judged.births[site])
    if reason == "held":
        return "Compare with what is held later, or record the program itself with leakscope run."
    if reason == "few samples":
        return "Sample more often, or record every allocation (without --sample)."
    if reason == "no time":
        return "Give the program more work, so that it runs for at least a second."
    if reason == "few":
        factor = max(2, -(-8 // max(int(judged.lives.survivors[site]), 1)))
        return f"Run it {factor} times as long, or repeat the work that allocates here ({births:,} times so far)."
    return f"Run for at least {duration_text(2 * judged.end_ns)} under the same load, or repeat the work that allocates here."


def evidence(judged: Judged, i: int) -> tuple[Evidence, ...]:
    """List the signals on the i-th judged site, those against its verdict included."""
    site = int(judged.sites[i])
    lives, course = judged.lives, judged.growth
    live, dead = int(lives.survivors[site]), int(lives.deaths[site])
    births = int(judged.births[site])
    growing = judged.verdicts[i] in (
        Verdict.LEAKING,
        Verdict.GROWING,
        Verdict.FILLING,
        Verdict.LOST,
    )
    found: list[Evidence] = []
    reach = judged.reach
    if reach is not None and live:
        lost = int(reach.lost[site])
        possible, held = int(reach.possible[site]), int(reach.reachable[site])
        unknown = int(reach.unknown[site])
        text = f"{_of(lost, live)} lost"
        if held:
            text += f", {held:,} still reachable"
        if possible:
            text += f", {possible:,} possibly lost"
        if unknown:
            text += f", {unknown:,} not examined"
        leak = judged.verdicts[i].is_leak
        if lost or held or possible or unknown:  # nothing of a mapping is
            found.append(Evidence("reachability", lost, text, supports=(lost > 0) == leak))
    if not judged.by_lifetimes:
        return tuple(found)
    if (why := judged.service[i]) is not None and judged.verdicts[i] is Verdict.LEAKING:
        seen = why is not Service.UNSEEN
        found.append(Evidence("service", why.value, _SERVES[why], supports=seen))
    if judged.reasons[i] == "given back":
        peak = int(course.counts[i].max(initial=0))
        found.append(
            Evidence(
                "peak_count",
                peak,
                f"{peak:,} of {births:,} blocks were alive at once before the end",
            )
        )
    elif live:
        hit, of = int(judged.windows[i]), int(judged.possible_windows[i])
        if of >= 2 and births >= 4:  # fewer are in few parts whatever they are
            parts = f"all {of}" if hit == of else f"{hit} of the {of}"
            text = f"survivors were born in {parts} parts of the run from the first birth on"
            found.append(
                Evidence("survivor_windows", hit, text, supports=(hit >= of / 2) == growing)
            )
        if dead:
            share = float(lives.immortal[site])
            old, age = int(lives.outlived[site]), duration_text(int(lives.lifetime_ns[site]))
            freed = f"99 % of the {dead:,} freed blocks" if dead > 1 else "the one freed block"
            older = f"{old:,} of the living {'is' if old == 1 else 'are'} older"
            older = older if old else "none of the living is older"
            text = f"{freed} lived up to {age}; {older}"
            found.append(
                Evidence("outlived", old, text, supports=bool(judged.survival[i]) == growing)
            )
            found.append(
                Evidence(
                    "freed", dead, f"{_of(dead, births, was=True)} freed", supports=not growing
                )
            )
            if growing:
                found.append(
                    Evidence(
                        "immortal_share",
                        round(share, 4),
                        f"{share_text(share)} of births survive that age",
                    )
                )
        elif births > 1 or reach is None or not reach.lost[site]:
            found.append(Evidence("freed", 0, f"{_of(0, births, was=True)} freed", supports=True))
    if judged.reasons[i] == "larger":
        p, fall = float(course.bytes_p_value[i]), float(course.bytes_gained[i])
        text = (
            f"its bytes keep growing ({_p(p)}, {share_text(fall)} of them since the second quarter)"
        )
        found.append(Evidence("bytes_trend_p", p, text))
    elif course.rows >= 8 and births >= 5:
        p = float(course.p_value[i])
        gained = float(course.gained[i])
        if judged.trend[i]:
            text = f"the number of blocks keeps growing ({_p(p)}, {share_text(gained)} of it since the second quarter)"
        elif p < 0.01 and gained > 0:
            text = f"the number of blocks grew, but not to the end ({share_text(gained)} since the second quarter)"
        else:
            text = f"the number of blocks shows no lasting growth ({_p(p)})"
        found.append(Evidence("trend_p", p, text, supports=bool(judged.trend[i]) == growing))
    if judged.reasons[i] == "filling":
        slow = float(judged.slowdown[i])
        text = f"births slow down to {share_text(slow)} of their first rate (better fit than steady births)"
        found.append(Evidence("slowdown", round(slow, 4), text))
    return tuple(found)


_SERVES = {
    Service.LEVEL: "all other memory reached its level early and stayed there at work, while this grew on",
    Service.STEADY: "it grew at a steady rate for more than half an hour",
    Service.UNSEEN: "whether anything still points to the blocks was not examined",
    Service.KILLED: "the program was ended by a signal: it had not come to an end of its own",
}


def too_few_samples(samples: int, recording: Recording) -> str:
    """Say how many samples were taken, and which period would do."""
    sites, coverage = recording.sites, recording.coverage
    period = int(coverage.sample_bytes or 1)
    seen = max(int(sites["alloc_bytes"].sum()), samples * period)
    better = 1 << max(0, (seen // _WANTED)).bit_length() - 1 if seen >= _WANTED else 0
    if better >= 1024:
        what = f"--sample {typed_size(better)} would take about {max(seen // better, 1):,}"
    else:
        what = "record every allocation (without --sample)"
    taken = (
        "no sample was"
        if not samples
        else f"only {_n(samples, 'sample')} {'was' if samples == 1 else 'were'}"
    )
    return f"not enough data: {taken} taken (one in {bytes_text(period)}), which proves nothing; {what}"


def _runs(recording: Recording) -> bool:
    return recording.process.ended == "running"


def _place(source: Frame | None) -> str:
    if source is None:
        return "here"
    if source.function is not None:
        return f"in {_without_parameters(source.function)}"
    return "here"


@lru_cache(maxsize=1 << 12)
def _without_parameters(function: str) -> str:
    """`f(int)` is f, but `main::{lambda(int)#1}::operator()() const` keeps its middle."""
    end = len(function)
    while (close := function.rfind(")", 0, end)) > 0 and function[close + 1 : end] in {
        "",
        " const",
    }:
        depth, at = 0, close
        while at >= 0:
            depth += {")": 1, "(": -1}.get(function[at], 0)
            if depth == 0:
                break
            at -= 1
        if at <= 0 or function[:at].endswith("operator"):
            break
        end = at
    return function[:end]


def _when(first: int, last: int) -> str:
    return (
        f"{duration_text(first)} after the start"
        if last - first < 10_000_000
        else f"between {duration_text(first)} and {duration_text(last)}"
    )


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count:,} times")


def _n(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _of(count: int, whole: int, *, was: bool = False) -> str:
    """Say how many of the blocks, with the verb: "all 30 blocks are", "1 of 3 blocks was"."""
    one, many = ("was", "were") if was else ("is", "are")
    if whole == 1:
        return f"the only block {one}" if count else f"the only block {one} not"
    if not count:
        return f"none of the {whole:,} blocks {one}"
    if count == whole:
        return f"all {whole:,} blocks {many}"
    return f"{count:,} of {whole:,} blocks {one if count == 1 else many}"


def _p(value: float) -> str:
    return "p < 0.0001" if value < 0.0001 else f"p = {value:.2g}"
