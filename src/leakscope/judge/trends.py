# SPDX-License-Identifier: Apache-2.0
"""Tell from the course of a gauge whether it leaks, fills, warms up, steps, breathes or rests.

`judge_series` is a pure function of its data. Values are never compared across a cut: only the stretch after
the last one counts. A leak needs three things at once: a Mann-Kendall trend that survives false-discovery
control over all series judged together, an effect worth a word, and floors that rise as well; and nothing may
explain the growth better (a bend, a step, a day's rhythm, elder processes of the same executable that stopped).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence  # noqa: TC003 (typing.get_type_hints works)
from dataclasses import dataclass

import numpy as np

from leakscope.judge import _series_stats as stats
from leakscope.judge._look import Look
from leakscope.judge._trend_text import trend_of
from leakscope.judge.growing import grows_fast, growth_now
from leakscope.model.series import Series, Trend, TrendVerdict
from leakscope.words import amount_text, seconds_text

__all__ = ["TrendOptions", "judge_series"]


@dataclass(frozen=True, slots=True)
class TrendOptions:
    """Where the lines are drawn. The defaults were tuned on the training half of benchmarks/series."""

    min_points: int = 30
    min_window_s: float = 900.0
    min_age_s: float = 2400.0  # a younger process is never called a leak
    min_ageless_s: float = 1800.0  # what has no age, as a cgroup, is watched for so long at least
    min_effect: float = 0.02  # growth in the window, of the level
    min_bytes: float = 1 << 20
    min_count: float = 8.0
    p_value: float = 2e-3  # one-sided, per series
    false_discovery: float = 0.01
    bins: int = 72


# Share of leaks among what is called one after so many hours, in the training half of
# benchmarks/series at every look; what is not seen for a day may be a daily rhythm.
_LEAKS = ((24.0, 0.99), (3.0, 0.95), (2.0, 0.92), (1.5, 0.88), (0.0, 0.85))
_LEVEL = 5  # groups of samples that show where a level was before a step
_FEW = 12  # groups of samples that a line can be judged on


def judge_series(
    series: Sequence[Series], *, options: TrendOptions = TrendOptions()
) -> list[Trend]:
    """One `Trend` per series, in the same order; rates are per hour with a 95 % interval."""
    looks = [_look(one, options) for one in series]
    # Every series that was tested counts in the correction, not only those that look bad.
    tested = [look for look in looks if look.line is not None]
    kept = stats.benjamini_hochberg(np.array([look.p for look in tested]), options.false_discovery)
    for look, survives in zip(tested, kept, strict=True):
        if look.verdict is TrendVerdict.LEAK and not survives:
            look.verdict = TrendVerdict.NOT_ENOUGH_DATA
            look.why = "rises, but among so many series one may rise by chance"
            look.more_s = max(600.0, look.window_h * 3600.0 * 0.5)
    _compare_at_equal_age(looks)
    for look in looks:
        if look.verdict is TrendVerdict.LEAK and _is_cache(look.series):
            look.verdict = TrendVerdict.CACHE
            look.why = "grows as files and names are used; the kernel gives it back on demand"
    _compare_with_files(looks)
    _note_growth(looks)
    return [trend_of(look) for look in looks]


# What keeps these verdicts from being a leak says nothing about the growth of this moment.
_OPEN = (
    TrendVerdict.NOT_ENOUGH_DATA,
    TrendVerdict.PLATEAU,
    TrendVerdict.STEP,
    TrendVerdict.WARM_UP,
    TrendVerdict.SEASONAL,
)
_GONE = 3.5  # times the usual distance of its looks: what is missing for longer has ended


def _note_growth(looks: list[Look]) -> None:
    """Measure the growth of each series, and call it growing fast where nothing says more."""
    newest = max((int(k.series.times_ns[-1]) for k in looks if len(k.series.times_ns)), default=0)
    for look in looks:
        times = look.series.times_ns
        look.growth = growth_now(look.series)
        if look.growth is None or look.verdict not in _OPEN or _is_cache(look.series):
            continue
        if look.series.subject.kind == "slab" and _is_of_files(look.series):
            continue
        usual = float(np.median(np.diff(times)))
        if newest - int(times[-1]) <= _GONE * usual and grows_fast(look.growth):
            look.verdict = TrendVerdict.GROWING


def _look(series: Series, options: TrendOptions) -> Look:
    look = Look(series)
    times, values = series.newest_course()
    n = len(values)
    window_s = (int(times[-1]) - int(times[0])) / 1e9 if n > 1 else 0.0
    look.window_h = window_s / 3600.0
    look.last = float(values[-1]) if n else 0.0
    started = series.subject.started_ns
    age_s = max(0.0, (int(times[-1]) - started) / 1e9) if n and started is not None else math.inf
    # The points still missing arrive at the pace seen so far.
    missing_s = (
        (options.min_points - n) * (window_s / (n - 1)) if 1 < n < options.min_points else 0.0
    )
    window = options.min_window_s if started is not None else options.min_ageless_s
    wait = max(window - window_s, options.min_age_s - age_s, missing_s)
    if n < options.min_points or wait > 0:
        look.more_s = max(wait, 1.0)
        look.why = f"only {n} {'sample' if n == 1 else 'samples'} over {seconds_text(window_s)}"
        if age_s < options.min_age_s:
            look.why += f" of a process {seconds_text(age_s)} old"
        return look
    hours = (times - times[0]) / 3.6e12
    bins = int(min(options.bins, max(12, n // 8)))
    t, y, low = stats.decimate(hours, np.asarray(values, dtype=np.float64), bins)
    if len(t) > options.bins:
        t, y, low = t[-options.bins :], y[-options.bins :], low[-options.bins :]
    _classify(look, hours, values, t, y, low, options)
    return look


def _classify(
    look: Look,
    hours: stats.Array,
    values: stats.Array,
    t: stats.Array,
    y: stats.Array,
    low: stats.Array,
    options: TrendOptions,
) -> None:
    """Set verdict and evidence; a daily rhythm is taken out first, and put into words afterwards."""
    daily = stats.daily_strength(t, y)
    if daily <= 0.5 or float(np.ptp(y)) == 0.0:
        _classify_course(look, hours, values, t, y, low, options)
        return
    wave = stats.daily_wave(t, y)
    own, fine = wave(t), wave(hours)
    _classify_course(look, hours, values - fine, t, y - own, low - own, options)
    look.extra = (("daily", daily), *look.extra)
    if look.verdict is TrendVerdict.LEAK:
        look.why = "follows a daily rhythm and grows from day to day"
    elif look.verdict in (TrendVerdict.PLATEAU, TrendVerdict.SAWTOOTH):
        look.verdict = TrendVerdict.SEASONAL
        look.why = "follows a daily rhythm, no growth from day to day"


def _classify_course(
    look: Look,
    hours: stats.Array,
    values: stats.Array,
    t: stats.Array,
    y: stats.Array,
    low: stats.Array,
    options: TrendOptions,
) -> None:
    """Set verdict and evidence. The order matters: what explains the growth is asked before the leak."""
    level = float(np.median(y))
    least = max(
        options.min_effect * abs(level),
        options.min_bytes if look.series.unit == "bytes" else options.min_count,
    )
    line = look.line = stats.fit_line(t, y)
    look.p = line.p
    look.sure = next(share for hours, share in _LEAKS if look.window_h >= hours)
    if float(np.ptp(y)) == 0.0:
        look.verdict, look.why = TrendVerdict.PLATEAU, "constant"
        return

    # A fine view for drops: a sawtooth's period may be shorter than a bin of the slope.
    fine_t, fine_y, _ = stats.decimate(hours, values, min(720, len(values)))
    at, floor, drop = stats.floors(fine_t, fine_y)
    # A drop counts when the rest breathes less than it: white noise has no such drops, six times its own spread.
    if len(floor) >= 3 and drop > least:
        floor_line = stats.fit_line(at, floor)
        grown = floor_line.slope * float(at[-1] - at[0])
        look.line, look.p, look.floor_z = floor_line, floor_line.p, floor_line.z
        look.extra = (("drops", float(len(floor))),)
        if len(floor) >= 8 and grown >= least and floor_line.p < options.p_value:
            if _bends(at, floor):
                look.verdict, look.why = TrendVerdict.FILLING, "its floors rise, but ever slower"
            else:
                look.verdict, look.why = TrendVerdict.LEAK, "rises and falls, and its floors rise"
        else:
            look.verdict, look.why = (
                TrendVerdict.SAWTOOTH,
                f"rises and falls ({len(floor)} drops), floors do not rise",
            )
        return

    grown = line.slope * float(t[-1] - t[0])
    fall = float(np.max(fine_y[:-1] - fine_y[1:]))
    if fall > max(least, 0.5 * float(np.ptp(fine_y))) and fall > 8.0 * float(
        np.median(np.abs(np.diff(fine_y)))
    ):
        look.why = "it fell sharply in between, and three falls are needed to know its floors"
        look.more_s = look.window_h * 3600.0
        return
    where = _step(look, t, y, least, options)
    if where == 0:
        return
    if where is not None:
        later = hours >= t[where]
        look.window_h = float(t[-1] - t[where])
        after = (t[where:] - t[where], y[where:], low[where:])
        _classify_course(look, hours[later] - t[where], values[later], *after, options)
        if look.verdict is TrendVerdict.LEAK:
            look.why += ", after a step"
        return
    if _early_growth(look, t, y, line, least, options):
        return
    look.floor_z = stats.fit_line(t, low).z
    significant = line.p < options.p_value and line.slope > 2.5 * line.error
    if not significant or grown < least:
        # Could a growth worth a word hide in this noise?
        hidden = (line.slope + 1.96 * line.error) * float(t[-1] - t[0])
        if grown >= least and line.slope > 1.645 * line.error:
            look.verdict, look.why = (
                TrendVerdict.NOT_ENOUGH_DATA,
                "rises, not yet beyond its own noise",
            )
            # z grows with time to the power 3/2: how long until it reaches the bar?
            ratio = (3.2 / max(0.5, line.slope / line.error)) ** (2.0 / 3.0)
            look.more_s = max(600.0, look.window_h * 3600.0 * (ratio - 1.0))
        else:
            look.verdict = TrendVerdict.PLATEAU
            look.why = "flat" if hidden < 2 * least else "no growth beyond its noise"
        return
    if look.floor_z < 1.0:
        look.verdict, look.why = (
            TrendVerdict.NOT_ENOUGH_DATA,
            "the mean rises, the floors do not yet",
        )
        look.more_s = max(600.0, 0.5 * look.window_h * 3600.0)
        return
    look.verdict = TrendVerdict.LEAK
    look.why = look.why or "floors rise as well"


# Objects that the kernel keeps for each cached inode or name, in caches that are not marked as
# reclaimable: they go when the inode goes.
_OF_FILES = ("lsm_inode", "selinux_inode", "inode_security", "lsm_file", "fscrypt", "fsverity")
_TOGETHER = 0.8  # correlation of increments


def _compare_with_files(looks: list[Look]) -> None:
    """Tell a slab cache that follows the kernel's cache of files from one that leaks.

    Builds and backups fill the inode cache, and each cached inode brings objects of other caches
    with it. Whether those go with it can be tried: that settles it for caches that are not known.
    """
    files = [
        look.series
        for look in looks
        if look.series.subject.kind == "slab"
        and look.series.metric == "reclaimable"
        and ("inode" in look.series.subject.name or "dentry" in look.series.subject.name)
    ]
    for look in looks:
        series = look.series
        kernel = series.subject.kind in {"slab", "allocinfo", "page_stack"}
        if look.verdict is not TrendVerdict.LEAK or not kernel:
            continue
        if _is_of_files(series) and (
            beside := next((f for f in files if _grown(f) >= _grown(series)), None)
        ):
            look.verdict = TrendVerdict.CACHE
            look.why = (
                f"belongs to the kernel's cache of files, which grows ({beside.subject.name})"
            )
        elif beside := next((f for f in files if _together(series, f) > _TOGETHER), None):
            look.verdict = TrendVerdict.NOT_ENOUGH_DATA
            look.why = (
                f"grows with the kernel's cache of files ({beside.subject.name}); whether it is given"
                " back with it shows after `echo 2 > /proc/sys/vm/drop_caches`"
            )
            look.more_s = 600.0


def _is_of_files(series: Series) -> bool:
    return any(part in series.subject.name for part in _OF_FILES)


def _grown(series: Series) -> float:
    return float(series.values[-1] - series.values[0]) if len(series.values) else 0.0


def _together(one: Series, other: Series) -> float:
    hours = (one.times_ns / 3.6e12, other.times_ns / 3.6e12)
    return stats.move_together(hours[0], one.values, hours[1], other.values)


def _is_cache(series: Series) -> bool:
    kind, metric = series.subject.kind, series.metric
    return (kind, metric) in {
        ("system", "page_cache"),
        ("system", "slab_reclaimable"),
        ("slab", "reclaimable"),
        ("allocinfo", "cached"),
        ("cgroup", "file"),
    }


def _bends(t: stats.Array, y: stats.Array) -> bool:
    bend_z, late = stats.relaxation(t, y)
    return bend_z < -3.0 and late < 0.7


def _step(
    look: Look, t: stats.Array, y: stats.Array, least: float, options: TrendOptions
) -> int | None:
    """Find one sudden change of level.

    None: there is none. 0: it explains the growth, and the verdict is set. Else: the place from
    which on growth goes on, to be judged by itself.
    """
    where, ratio, height = stats.step_at(y)
    # A step happens within a bin or two; what takes longer is growth, whatever the best two levels say.
    sudden = _jump(y, where) / height if height else 0.0
    levels = abs(height) >= least and sudden > 0.7
    if not levels:
        # Growth after a step moves the best two levels away from it; its suddenness remains.
        where = int(np.argmax(np.abs(y[3:] - y[:-3]))) + 2
        if where < _LEVEL:  # no level before it: that is how a warm-up begins
            return None
    left = len(y) - where
    after = stats.fit_line(t[where:], y[where:]) if left >= 8 else None
    grows = (
        after is not None
        and after.p <= options.p_value
        and after.slope * (t[-1] - t[where]) >= least
    )
    jump = abs(_jump(y, where))
    clear = jump >= least and jump > 10.0 * float(np.median(np.abs(np.diff(y))))
    plain = levels and ratio < 0.6 and ratio < stats.saturation(t, y)[1]
    if grows and (plain or clear):
        enough = left >= _FEW and (t[-1] - t[where]) * 3600.0 >= options.min_window_s
        return max(where, 1) if enough else None
    if grows or not plain:
        return None
    back = look.window_h - float(t[where])
    look.verdict = TrendVerdict.STEP
    look.why = (
        f"one step {'up' if height > 0 else 'down'} of {amount_text(abs(height), look.series.unit)}"
    )
    look.why += (
        f" {seconds_text(back * 3600)} ago, flat since" if after is not None else " just now"
    )
    return 0


def _jump(y: stats.Array, where: int) -> float:
    """How far the value goes within the three bins around `where`."""
    return float(y[min(where + 1, len(y) - 1)] - y[max(where - 2, 0)])


def _early_growth(
    look: Look,
    t: stats.Array,
    y: stats.Array,
    line: stats.Line,
    least: float,
    options: TrendOptions,
) -> bool:
    """True when a saturation explains the growth (and the verdict is set)."""
    span = float(t[-1] - t[0])
    tau, saturating, reached = stats.saturation(t, y)
    edge = max(3, len(y) // 12)
    rise = float(np.mean(y[-edge:]) - np.mean(y[:edge]))
    bends = _bends(t, y)
    tail = t >= t[0] + 0.6 * span
    end = stats.fit_line(t[tail], y[tail])
    flat_end = end.slope < 0.3 * line.slope and (line.slope - end.slope) > 2.6 * end.error
    if rise < least or not (bends or flat_end or saturating < 0.8):
        return False
    # A bent tail makes its own residuals look autocorrelated: its rise is then weighed without that.
    bent = _bends(t[tail], y[tail])
    error = end.error / math.sqrt(end.inflation) * 2.0 if bent else end.error
    grows = end.slope * span >= least and end.slope > 2.0 * error and (bent or end.p < 0.01)
    look.extra = (("tau_h", tau), ("saturation_ratio", saturating), ("bound_reached", reached))
    brief, both, _ = stats.warm_up_and_line(t, y)
    # A warm-up that is over and a line explain it far better than one that goes on.
    over = 3.5 * tau < 0.6 * span or (both < 0.5 * saturating and 3.5 * brief < 0.6 * span)
    if grows and not bent and over and end.slope * 0.4 * span >= least:
        look.line, look.p = end, end.p  # warmed up long ago, and leaks below it: judge the rest
        look.verdict, look.why = TrendVerdict.LEAK, "after its warm-up it keeps growing"
        look.floor_z = end.z
        return end.p < options.p_value
    look.line = end
    if grows:
        look.verdict, look.why = TrendVerdict.FILLING, "grows, but ever slower"
    else:
        look.verdict, look.why = TrendVerdict.WARM_UP, "grew early, then stopped"
    return True


def _compare_at_equal_age(looks: list[Look]) -> None:
    """An extra vote: what elder processes of the same executable did at the age this one has now.

    A rise that every elder one made too and then stopped is a warm-up; one that several make now is surer.
    Source of the idea: RESIN (Lou et al., OSDI 2022).
    """
    groups: dict[tuple[str, str], list[Look]] = defaultdict(list)
    for look in looks:
        subject = look.series.subject
        if subject.exe and subject.started_ns is not None and len(look.series.times_ns):
            groups[(subject.exe, look.series.metric)].append(look)
    rested = (TrendVerdict.PLATEAU, TrendVerdict.WARM_UP, TrendVerdict.SAWTOOTH)
    for group in groups.values():
        leaking = sum(look.verdict is TrendVerdict.LEAK for look in group)
        for look in group:
            if look.verdict is not TrendVerdict.LEAK:
                continue
            mine = _age_s(look)
            elders = [one for one in group if one is not look and _age_s(one) > 1.5 * mine]
            calm = [one for one in elders if one.verdict in rested and one.last >= 0.9 * look.last]
            if elders and len(calm) == len(elders):
                look.verdict = TrendVerdict.WARM_UP
                look.why = f"grows, as {len(calm)} elder of the same executable did before they stopped higher up"
                look.sure = 0.6
            elif leaking >= 3 and leaking >= 0.5 * len(group):
                look.why += f", and {leaking} processes of this executable grow alike"
                look.sure = min(0.99, look.sure + 0.03)


def _age_s(look: Look) -> float:
    started = look.series.subject.started_ns
    assert started is not None
    return (int(look.series.times_ns[-1]) - started) / 1e9
