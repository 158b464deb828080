# SPDX-License-Identifier: Apache-2.0
"""From a recording to findings: rules, then names, suppressions and the headline."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from leakscope.judge.identities import Fingerprints, stable_identity
from leakscope.judge.kernel_kinds import quiet_kind
from leakscope.judge.known import interpreter_state, known_one_off
from leakscope.judge.options import Options
from leakscope.judge.places import Place, Places
from leakscope.judge.rules import Judged, judge_sites
from leakscope.judge.runtimes import Runtime, go_in, runtime_own, runtimes_of
from leakscope.judge.sentences import (
    evidence,
    next_step,
    of_one_place,
    sentence,
    too_few_samples,
)
from leakscope.judge.threads import about_threads
from leakscope.model.columns import LIFETIMES, Column
from leakscope.model.findings import Finding, Findings, SuppressionUse, Verdict
from leakscope.words import bytes_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from leakscope.judge.gate import Gate
    from leakscope.judge.suppressions import Suppression
    from leakscope.model.findings import BudgetUse
    from leakscope.model.frames import Code, Frame
    from leakscope.model.recordings import Recording

__all__ = ["judge"]

# Verdicts that a library's own start-up work may have; growth is never excused.
_EXCUSABLE = (
    Verdict.ONE_OFF,
    Verdict.WARM_UP,
    Verdict.UNKNOWN,
    Verdict.BOUNDED,
    Verdict.RETAINED,
    Verdict.LOST,
)
# How the reasons begin for which somebody lets a leak pass.
_PASSED = ("suppressed", "in the baseline", "within the budget")
_FEW = 4  # undecided or lost blocks that still count as a one-off of a library


def judge(
    recording: Recording,
    frames_of: Callable[[int], tuple[Frame, ...]],
    suppressions: Sequence[Suppression] = (),
    options: Options | None = None,
    prepare: Callable[[npt.NDArray[np.int64]], None] | None = None,
    code: Callable[[Frame], Code] | None = None,
    gate: Gate | None = None,
) -> Findings:
    """Judge every allocation site that holds memory.

    `frames_of` returns the resolved call stack of a site number, innermost first; `prepare`
    is told before which sites it will be asked for, `code` tells about a frame's function, `gate` what passes. The findings are ordered by the bytes that
    they hold. Nothing is read but the arguments.
    """
    options = options or Options()
    lived = recording.knows(*LIFETIMES)
    if lived:
        judged = judge_sites(recording, options)
    else:
        from leakscope.judge.held import judge_held  # here: our own recordings need none of it

        judged = judge_held(recording, options)
    runtimes = runtimes_of(recording)
    findings: list[Finding] = []
    uses: dict[Suppression, list[int]] = {}
    described = _described(judged, options.most_findings)
    if prepare is not None:
        prepare(judged.sites[described])
    identities = Fingerprints(recording)
    stacks = {int(judged.sites[i]): frames_of(int(judged.sites[i])) for i in described}
    places = Places(recording, stacks, code)
    scan = recording.scan
    unjoined = {each.site: each for each in scan.unjoined} if scan is not None else {}
    for i in described:
        finding = _finding(
            recording,
            judged,
            i,
            stacks[int(judged.sites[i])],
            places.of(int(judged.sites[i])),
            identities,
            runtimes,
        )
        if finding.verdict is Verdict.LOST and finding.site in unjoined:
            finding = about_threads(finding, unjoined[finding.site])
        for rule in suppressions:
            if not _applies(rule, finding, judged, i):
                continue
            use = uses.setdefault(rule, [0, 0, 0])
            use[0] += 1
            use[1] += finding.leak_count or 0
            use[2] += finding.leak_bytes
            if not rule.expired:
                finding = _quiet(finding, f"suppressed: {rule.name}")
                break
        findings.append(finding)
    passed = None if gate is None else gate(findings, recording)
    budgets = () if passed is None else passed.budgets
    findings = of_one_place(findings if passed is None else passed.findings)
    runtimes = (*runtimes, *go_in(finding.stack for finding in findings))
    return Findings(
        process=recording.process,
        coverage=recording.coverage,
        verdict=_overall(findings, judged, options),
        headline=_headline(findings, recording, judged, options, runtimes) + _over_budget(budgets),
        findings=tuple(findings),
        live_bytes=recording.total(Column.LIVE_BYTES),
        live_count=recording.total(Column.LIVE_COUNT),
        peak_bytes=_peak(recording),
        total_allocs=recording.total(Column.ALLOCS),
        total_frees=recording.total(Column.FREES),
        total_alloc_bytes=recording.total(Column.ALLOC_BYTES),
        duration_ns=recording.duration_ns if recording.knows(Column.DURATION) else None,
        absent=tuple(column for column in Column if column in recording.absent),
        suppressions=tuple(
            SuppressionUse(
                rule.name,
                rule.source,
                use[0],
                use[1],
                use[2],
                until=rule.until,
                why=rule.why,
                expired=rule.expired,
            )
            for rule, use in uses.items()
        ),
        budgets=budgets,
        notes=(
            *(passed.notes if passed is not None else ()),
            *_notes(recording, judged, described),
        ),
        runtimes=tuple(each.sentence for each in runtimes),
        scan=recording.scan,
        earlier=recording.earlier,
        too_few_samples=judged.samples is not None and judged.samples < options.min_samples,
    )


def _finding(
    recording: Recording,
    judged: Judged,
    i: int,
    stack: tuple[Frame, ...],
    place: Place,
    identities: Fingerprints,
    runtimes: Sequence[Runtime],
) -> Finding:
    site = int(judged.sites[i])
    row = recording.sites[site]
    verdict = judged.verdicts[i]
    rate = _rate(recording, judged, i)
    low, high = _interval(recording, judged, site)
    known = runtime_own(stack, runtimes) or quiet_kind(recording.kinds[int(row["kind"])])
    if known is None and verdict in _EXCUSABLE:
        proven = verdict is Verdict.LOST
        if judged.births[site] <= _FEW or not (proven or verdict is Verdict.UNKNOWN):
            known = known_one_off(stack, proven=proven)
        if proven and known is None and judged.service[i] is None:
            known = interpreter_state(stack)
    reach = judged.reach
    kind = recording.kinds[int(row["kind"])]

    def known_of(column: Column) -> int | None:
        return int(row[column.site_field]) if recording.knows(column) else None

    peak = known_of(Column.PEAK_BYTES)
    return Finding(
        subject="mapping" if kind in {"mmap", "brk"} else "site",
        site=site,
        kind=kind,
        verdict=verdict,
        pattern=judged.patterns[i],
        confidence=float(judged.confidence[i]),
        live_bytes=int(row["live_bytes"]),
        live_count=known_of(Column.LIVE_COUNT),
        allocs=known_of(Column.ALLOCS),
        frees=known_of(Column.FREES),
        rate=rate[0],
        rate_low=rate[1],
        rate_high=rate[2],
        sentence=sentence(judged, i, recording),
        next_step=None
        if known is not None
        else next_step(judged, i, place.source, attached="attached" in recording.coverage.troubles),
        evidence=evidence(judged, i),
        stack=stack,
        source=place.source,
        through=place.through,
        fingerprint=identities.of(site),
        stable_fingerprint=stable_identity(stack, kind) if stack else None,
        known=known,
        live_bytes_low=low,
        live_bytes_high=high,
        peak_bytes=None if peak is None else max(peak, int(row["live_bytes"])),
        lost_count=None if reach is None else int(reach.lost_count[site]),
        lost_bytes=None if reach is None else int(reach.lost_bytes[site]),
        unexamined_count=None if reach is None else int(reach.unknown[site]),
        unexamined_bytes=None if reach is None else int(reach.unknown_bytes[site]),
    )


def _rate(
    recording: Recording, judged: Judged, i: int
) -> tuple[float, float, float] | tuple[None, None, None]:
    """Growth in bytes a second with its 95 % interval: survivors as a compound Poisson process."""
    if judged.verdicts[i] not in {Verdict.LEAKING, Verdict.GROWING, Verdict.FILLING} and not (
        judged.verdicts[i] is Verdict.LOST and judged.trend[i] and judged.survival[i]
    ):
        return None, None, None
    site = int(judged.sites[i])
    first = int(recording.sites["first_birth_ns"][site])
    if judged.reasons[i] == "given back":
        counts = judged.growth.counts[i]
        top = len(counts) - 1 - int(np.argmax(counts[::-1]))
        seconds = (int(judged.growth.times_ns[top]) - first) / 1e9
        held = float(judged.growth.sizes[i][top])
        spread = held / math.sqrt(max(float(counts[top]), 1.0))
    elif judged.verdicts[i] is Verdict.LOST and judged.reach is not None:
        seconds = (judged.end_ns - first) / 1e9
        held = float(judged.reach.lost_bytes[site])
        spread = held / math.sqrt(max(float(judged.reach.lost[site]), 1.0))
    else:
        seconds = (judged.end_ns - first) / 1e9
        held = float(recording.sites["live_bytes"][site])
        spread = math.sqrt(float(judged.lives.square_bytes[site] + judged.lives.variance[site]))
    if seconds <= 0:
        return None, None, None
    return (
        held / seconds,
        max(held - 1.96 * spread, 0.0) / seconds,
        (held + 1.96 * spread) / seconds,
    )


def _interval(recording: Recording, judged: Judged, site: int) -> tuple[int | None, int | None]:
    """The 95 % interval of a sampled estimate of live bytes; None when exact.

    The estimate stands for `estimate² / variance` independent samples, whose count is Poisson:
    the Wilson-Hilferty form of Garwood's interval holds down to a single sample.
    """
    if recording.coverage.mode != "sampled":
        return None, None
    held = float(recording.sites["live_bytes"][site])
    variance = float(judged.lives.variance[site])
    if held <= 0 or variance <= 0:
        return None, None
    n = held * held / variance
    low = n * max(1 - 1 / (9 * n) - 1.96 / (3 * math.sqrt(n)), 0.0) ** 3
    m = n + 1
    high = m * (1 - 1 / (9 * m) + 1.96 / (3 * math.sqrt(m))) ** 3
    return int(held * low / n), int(held * high / n)


def _applies(rule: Suppression, finding: Finding, judged: Judged, i: int) -> bool:
    kind = None
    if judged.reach is not None:
        site = int(judged.sites[i])
        if judged.reach.lost[site]:
            lost, indirect = judged.reach.lost[site], judged.reach.indirect[site]
            kind = "indirect" if lost == indirect else "definite"
        else:
            kind = "possible" if judged.reach.possible[site] else "reachable"
    return rule.matches(finding.stack, kind)


def _quiet(finding: Finding, why: str) -> Finding:
    from dataclasses import replace

    return replace(finding, known=why, next_step=None)


def _overall(findings: Sequence[Finding], judged: Judged, options: Options) -> Verdict | None:
    loud = [finding for finding in findings if finding.known is None]
    for wanted in (Verdict.LOST, Verdict.LEAKING):
        if any(finding.verdict is wanted for finding in loud):
            return wanted
    if judged.samples is not None and judged.samples < options.min_samples:
        return Verdict.UNKNOWN
    for wanted in (Verdict.GROWING, Verdict.FILLING, Verdict.UNKNOWN):
        if any(finding.verdict is wanted for finding in loud):
            return wanted
    heaviest = max(loud, key=lambda finding: finding.live_bytes, default=None)
    return None if heaviest is None else heaviest.verdict


def _over_budget(budgets: Sequence[BudgetUse]) -> str:
    over = [each for each in budgets if each.exceeded]
    if not over:
        return ""
    first = over[0]
    more = f" and {len(over) - 1} more" if over[1:] else ""
    return (
        f"; over budget: {first.pattern} holds {bytes_text(first.bytes)} and may hold"
        f" {bytes_text(first.limit_bytes)}{more}"
    )


def _headline(
    findings: Sequence[Finding],
    recording: Recording,
    judged: Judged,
    options: Options,
    runtimes: Sequence[Runtime],
) -> str:
    text = _result(findings, recording, judged, options)
    blind = " and ".join(each.name for each in runtimes)
    return f"{text} (the heap of {blind} is not seen from here)" if blind else text


def _result(
    findings: Sequence[Finding], recording: Recording, judged: Judged, options: Options
) -> str:
    leaks = [finding for finding in findings if finding.is_leak]
    loud = [finding for finding in findings if finding.known is None]
    if leaks:
        return _leaks(leaks, recording)
    if judged.samples is not None and judged.samples < options.min_samples:
        return too_few_samples(judged.samples, recording)
    suppressed = [f for f in findings if f.verdict.is_leak and (f.known or "").startswith(_PASSED)]
    other = "no other leak" if suppressed else "no leak"
    if options.min_bytes:
        other += f" of {bytes_text(options.min_bytes)} or more"
    after = ""
    if suppressed:
        held = sum(f.leak_bytes for f in suppressed)
        all_of = all((f.known or "").startswith("suppressed") for f in suppressed)
        how = "suppressed" if all_of else "known"
        one = f"1 {how} place leaks"
        many = f"{len(suppressed):,} {how} places leak"
        after = f"; {one if len(suppressed) == 1 else many} {bytes_text(held)}"
    for verdict, what in (
        (Verdict.GROWING, "grew until the end"),
        (Verdict.FILLING, "still filling up"),
    ):
        grown = [f for f in loud if f.verdict is verdict]
        if grown:
            held = sum(f.leak_bytes for f in grown)
            where = "1 place" if len(grown) == 1 else f"{len(grown):,} places"
            if verdict is Verdict.FILLING:
                where += " is" if len(grown) == 1 else " are"
            examined = recording.reachability is not None or not len(recording.blocks)
            sure = "found" if examined else "proven"
            return f"{other} {sure}{after}; {where} {what} ({bytes_text(held)})"
    unknown = [f for f in loud if f.verdict is Verdict.UNKNOWN]
    held = sum(f.live_bytes for f in unknown)
    # What a run-time took for itself, its reserved heap above all, hides nothing of the program's.
    own = [f for f in findings if f.known is not None and f.known.startswith("run-time:")]
    total = int(recording.sites["live_bytes"].sum()) - sum(f.live_bytes for f in own)
    if unknown and held * 10 >= total:
        undecided = "1 site" if len(unknown) == 1 else f"{len(unknown):,} sites"
        return f"{other} proven{after}; {undecided} with {bytes_text(held)} could not be judged"
    if not recording.knows(Column.LIVE_BYTES):
        if recording.site_reach is not None:
            return f"{other} found"
        return "what is held is not known from this source"
    if total == 0 and not own:
        if not recording.knows(Column.ALLOCS, Column.FREES):
            return f"{other} found"
        nothing = recording.coverage.alloc_events == 0
        return f"{other} found: {'nothing was allocated' if nothing else 'every block was freed'}"
    by_verdict = Counter[str]()
    for finding in findings:
        # What is called a leak and got here is known, or suppressed.
        if not finding.verdict.is_leak and not (finding.known or "").startswith("run-time:"):
            by_verdict[finding.verdict.value] += finding.live_bytes
    name = by_verdict.most_common(1)[0][0] if by_verdict else ""
    most = f", most of it {name}" if name and by_verdict[name] * 2 > total else ""
    if judged.by_lifetimes and judged.reach is not None and judged.reach.possible.any():
        most += f", {bytes_text(int(judged.reach.possible_bytes.sum()))} possibly lost"
    return f"{other} found{after}; {bytes_text(total)} held at the end{most}"


def _leaks(leaks: Sequence[Finding], recording: Recording) -> str:
    held = sum(f.leak_bytes for f in leaks)
    places = len({f.place for f in leaks})
    rate = sum(f.rate for f in leaks if f.rate)
    lost = sum(f.leak_bytes for f in leaks if f.verdict is Verdict.LOST)
    noun, verb = ("place", "leaks") if places == 1 else ("places", "leak")
    about = "about " if recording.coverage.mode == "sampled" else ""
    text = f"{places:,} {noun} {verb} {about}{bytes_text(held)}"
    if lost and lost < held:
        text += f", {bytes_text(lost)} of it lost"
    return f"{text}, growing by {bytes_text(rate)}/s" if rate else text


def _peak(recording: Recording) -> int | None:
    if not recording.knows(Column.TIMELINE) and not recording.knows(Column.PEAK_BYTES):
        return None
    rows = recording.timeline.live_bytes
    peak = int(rows.max()) if len(rows) else 0
    return max(peak, int(recording.sites["live_bytes"].sum()))


def _described(judged: Judged, most: int) -> list[int]:
    """Which sites become findings, heaviest first: all, or all leaks and then the heaviest."""
    if len(judged.sites) <= most:
        return list(range(len(judged.sites)))
    leaks = [i for i, verdict in enumerate(judged.verdicts) if verdict.is_leak][:most]
    chosen = set(leaks)
    chosen.update(range(most - len(leaks)))
    return sorted(chosen)


def _notes(recording: Recording, judged: Judged, described: list[int]) -> tuple[str, ...]:
    notes = []
    if len(described) < len(judged.sites):
        rest = np.ones(len(judged.sites), dtype=bool)
        rest[described] = False
        leaks = sum(judged.verdicts[i].is_leak for i in np.flatnonzero(rest))
        held = int(judged.weight[judged.sites[rest]].sum())
        also = f", {leaks:,} of them leak" if leaks else ""
        notes.append(
            f"{int(rest.sum()):,} more sites hold {bytes_text(held)}{also}; they are not described"
        )
    nobody = int(recording.sites["live_bytes"][0]) if len(recording.sites) else 0
    if nobody:
        notes.append(f"{bytes_text(nobody)} could not be attributed to a call stack")
    if judged.reach is None and len(recording.blocks) and judged.verdicts:
        notes.append(
            "whether anything still points to the blocks was not examined: only their course was judged"
        )
    if judged.reach is not None:
        possible = [i for i, why in enumerate(judged.reasons) if why == "possibly lost"]
        held = int(judged.weight[judged.sites[possible]].sum())
        if judged.by_lifetimes:
            held = int(judged.reach.possible_bytes.sum())
        if held:
            notes.append(
                f"{bytes_text(held)} may be lost: only pointers to places inside those blocks"
                f"{', or addresses in another form,' if judged.by_lifetimes else ''} are left"
            )
        unknown = int(judged.reach.unknown.sum())
        if unknown:
            notes.append(f"{unknown:,} blocks were not examined by the reachability scan")
    if recording.scan is not None:
        notes.extend(recording.scan.notes)
    return tuple(notes)
