# SPDX-License-Identifier: Apache-2.0
"""Judge simulated series whose truth is known; print precision, recall, time to verdict and false alarms as Markdown.

    PYTHONPATH=src python benchmarks/series/run.py [--set train|held-out] [--count N]

Thresholds were chosen on `train` only; `held-out` has other seeds and wider shape parameters. Each series is
judged as a user would see it: at 1, 2, 5, 10, 20, 30 and 45 min, 1, 1.5, 2, 3, 4, 5 and 6 h (season: at its quarter
points from day 2), and a healthy one counts as a false alarm if it was called a leak at ANY look. "Growing fast" is no
alarm and is counted apart: at any look, and within the first two minutes.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from shapes import SHAPES, Shape, noise

from leakscope.judge.trends import judge_series
from leakscope.model.series import Series, Subject, TrendVerdict
from leakscope.words import confidence_words

WORDS = {
    "almost certain": 0.99,
    "very likely": 0.95,
    "likely": 0.85,
    "possible": 0.6,
    "only a suspicion": 0.0,
}
LOOKS = (1 / 60, 2 / 60, 5 / 60, 10 / 60, 20 / 60, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0)


def _series(shape: Shape, index: int, held_out: bool) -> Series:
    rng = np.random.default_rng([2026 if held_out else 1, SHAPES.index(shape), index])
    t = np.arange(0.0, shape.hours, shape.step_s / 3600)
    sigma, phi = shape.noise
    values = shape.level * (shape.draw(t, rng, held_out) + noise(len(t), sigma, phi, rng))
    if shape.unit == "count":
        values = np.round(values)
    subject = Subject(
        "process", f"{index}", shape.name, pid=index, started_ns=0, limit=4.0 * shape.level
    )
    times = ((t + shape.age_h) * 3.6e12).astype(np.int64)
    return Series(subject, "anon", shape.unit, times, values)


def _until(one: Series, hours: float) -> Series:
    until = one.times_ns[0] + hours * 3.6e12
    n = int(np.searchsorted(one.times_ns, until, side="right"))
    return Series(one.subject, one.metric, one.unit, one.times_ns[:n], one.values[:n], one.cuts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", choices=("train", "held-out"), default="held-out")
    parser.add_argument("--count", type=int, default=40)
    options = parser.parse_args()
    held_out = options.set == "held-out"
    began = time.process_time()
    print(f"Set: {options.set}, {options.count} series a shape.\n")
    print(
        "| shape | truth | called leak at the end | called leak at any look | median time to verdict "
        "| growing fast at any look | within 2 min | other verdicts |"
    )
    print("|---|---|---:|---:|---:|---:|---:|---|")
    called_by = {word: [0, 0] for word in WORDS}
    hit = missed = wrong = ever_wrong = twice_wrong = ever_ramp = 0
    healthy_hours = settled_hours = 0.0
    for shape in SHAPES:
        many = [_series(shape, index, held_out) for index in range(options.count)]
        looks = (
            tuple(h for h in LOOKS if h <= shape.hours)
            if shape.hours <= 6.0
            else tuple(shape.hours * f for f in (0.67, 0.75, 0.9, 1.0))
        )
        first = np.full(len(many), np.inf)
        before = np.zeros(len(many), dtype=bool)
        twice = np.zeros(len(many), dtype=bool)
        fast = np.zeros(len(many), dtype=bool)
        soon = np.zeros(len(many), dtype=bool)
        final: list[TrendVerdict] = []
        for hours in looks:
            trends = [judge_series([_until(one, hours)])[0] for one in many]
            final = [trend.verdict for trend in trends]
            for trend in trends:
                if trend.verdict is TrendVerdict.LEAK:
                    called_by[confidence_words(trend.confidence)][shape.leaks] += 1
            grows = np.array([verdict is TrendVerdict.GROWING for verdict in final])
            fast |= grows
            soon |= grows & (hours <= 2 / 60)
            called = np.array([verdict is TrendVerdict.LEAK for verdict in final])
            first = np.where(called & np.isinf(first), hours, first)
            twice |= called & before
            before = called
        at_end = sum(verdict is TrendVerdict.LEAK for verdict in final)
        ever = int(np.isfinite(first).sum())
        if shape.leaks:
            hit += at_end
            missed += len(many) - at_end
        else:
            wrong += at_end
            if shape.ramp:
                ever_ramp += ever
            else:
                ever_wrong += ever
                twice_wrong += int(twice.sum())
                settled_hours += shape.hours * len(many)
            healthy_hours += shape.hours * len(many)
        rest = {str(v): final.count(v) for v in dict.fromkeys(final) if v is not TrendVerdict.LEAK}
        others = ", ".join(
            f"{name} {count}" for name, count in sorted(rest.items(), key=lambda item: -item[1])
        )
        # The median over all series: one never called counts as infinitely late.
        median = float(np.median(first))
        when = "-" if not shape.leaks else f"{median:.2g} h" if np.isfinite(median) else "> 6 h"
        print(
            f"| {shape.name} | {'leak' if shape.leaks else 'healthy'} | {at_end}/{len(many)} | {ever}/{len(many)} "
            f"| {when} | {int(fast.sum())}/{len(many)} | {int(soon.sum())}/{len(many)} | {others} |"
        )
    print(
        f"\nPrecision at the end {hit / max(1, hit + wrong):.3f}, recall {hit / max(1, hit + missed):.3f}; "
        f"false alarms at the end: {wrong} in {healthy_hours:,.0f} healthy process-hours "
        f"({1000 * wrong / healthy_hours:.1f} per 1,000)."
    )
    print(
        f"At any look: {ever_wrong} in {settled_hours:,.0f} healthy process-hours "
        f"({1000 * ever_wrong / settled_hours:.1f} per 1,000), at two looks in a row: {twice_wrong} "
        f"({1000 * twice_wrong / settled_hours:.1f} per 1,000); and {ever_ramp} series more among those that are a "
        f"straight ramp until their bound or first fall ({healthy_hours - settled_hours:,.0f} process-hours)."
    )
    print(
        "\n| called, at any look | promised | findings | leaks | share |\n|---|---:|---:|---:|---:|"
    )
    for word, promised in WORDS.items():
        no, yes = called_by[word]
        share = f"{yes / (yes + no):.1%}" if yes + no else "-"
        print(f"| {word} | {promised:.0%} | {yes + no:,} | {yes:,} | {share} |")
    print(f"\nTook {time.process_time() - began:.0f} s of one core.")


if __name__ == "__main__":
    main()
