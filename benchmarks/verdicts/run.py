# SPDX-License-Identifier: Apache-2.0
"""Judge processes whose truth is known; print what each kind is called, and how often a word is right.

    python benchmarks/verdicts/run.py [--set train|held-out] [--count N] [--programs]

The shares of leaks in judge/rules.py were taken from `train` only; `held-out` has other seeds and wider
ranges. `--programs` runs the small programs of tests/programs as well, whose truth their headers claim.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter, defaultdict

from families import FAMILIES

from leakscope.judge import judge
from leakscope.model.findings import Finding
from leakscope.model.frames import Address, Frame
from leakscope.words import confidence_words
from programs import JOBS, programs

WORDS = {"almost certain": 0.99, "very likely": 0.95, "likely": 0.85, "possible": 0.6}


def frames_of(site: int) -> tuple[Frame, ...]:
    return (
        Frame(Address(0, site), module_path="/opt/app", function=f"f{site}", file="a.c", line=site),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", choices=("train", "held-out"), default="held-out")
    parser.add_argument("--count", type=int, default=150, help="processes of each kind")
    parser.add_argument("--programs", action="store_true")
    parser.add_argument("--evidence", action="store_true", help="also by evidence and time")
    options = parser.parse_args()
    began = time.process_time()
    by_word: dict[str, list[int]] = {word: [0, 0] for word in WORDS}
    by_evidence: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    print(f"Set: {options.set}, {options.count} processes of each kind.\n")
    print(
        "| process | sites that leak | of them called a leak | other sites called a leak | the leaks' verdicts |"
    )
    print("|---|---:|---:|---:|---|")
    for family in FAMILIES:
        leaks = hit = wrong = 0
        verdicts: Counter[str] = Counter()
        for index in range(options.count):
            truth = family.draw(index, held_out=options.set == "held-out")
            found = judge(truth.recording, frames_of)
            leaks += len(truth.leaking)
            for each in found.findings:
                right = each.site in truth.leaking
                if right:
                    verdicts[each.verdict.value] += 1
                if each.is_leak:
                    hit += right
                    wrong += not right
                    tally(by_word, each, right)
                    evidence = next(
                        (str(e.value) for e in each.evidence if e.name == "service"), ""
                    )
                    seconds = found.duration_ns / 1e9
                    bin_ = next((s for s in (36000, 3600, 300, 60, 10, 3) if seconds >= s), 0)
                    by_evidence[evidence, f"{bin_:>6} s"][right] += 1
        others = ", ".join(f"{name} {count}" for name, count in verdicts.most_common())
        print(f"| {family.name} | {leaks or '-'} | {hit if leaks else '-'} | {wrong} | {others} |")
    if options.programs:
        findings, clean, calm = programs()
        for is_leak, each in findings:
            by_word[each["confidence_words"]][is_leak] += 1
        print(
            f"\nPrograms: {len(findings)} findings called leaks in {clean} runs,"
            f" {sum(is_leak for is_leak, _ in findings)} of them leaks; {calm} of {len(JOBS)} real jobs are calm."
        )
    if options.evidence:
        for (evidence, seconds), (no, yes) in sorted(by_evidence.items()):
            print(f"    {evidence:10} from {seconds}: {yes}/{yes + no} = {yes / (yes + no):.3f}")
    print("\n| called | promised | findings | leaks | share |\n|---|---:|---:|---:|---:|")
    for word, promised in WORDS.items():
        no, yes = by_word[word]
        share = f"{yes / (yes + no):.1%}" if yes + no else "-"
        print(f"| {word} | {promised:.0%} | {yes + no} | {yes} | {share} |")
    print(f"\nTook {time.process_time() - began:.0f} s of one core.")


def tally(by_word: dict[str, list[int]], finding: Finding, right: bool) -> None:
    """Count a finding under the word that its report would show."""
    by_word[confidence_words(finding.confidence)][right] += 1


if __name__ == "__main__":
    main()
