# SPDX-License-Identifier: Apache-2.0
"""The one screen that says where the memory of this machine is, and what to run next."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from leakscope.model.triage import ProgramGroup
from leakscope.report.ink import ALARM, CALM, WARNING
from leakscope.report.steps import step_lines
from leakscope.report.text import clip_right, printable
from leakscope.words import bytes_text, count_text, percent_text, rate_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.model.triage import AccountLine, Holder, Oddity, Triage
    from leakscope.report.ink import Ink

__all__ = ["headline", "programs_of", "render_triage", "to_json"]

SCHEMA = "leakscope-triage/1"
_PROGRAMS, _FEWEST = 8, 3
_ODDITIES = 6
_SCREEN = 24  # lines of a small terminal
_GROWS = 65_536.0  # bytes a second that are worth a word
_FASTEST = 2  # programs


def programs_of(processes: Sequence[Holder]) -> tuple[ProgramGroup, ...]:
    """Put the processes of each executable together, the biggest program first."""
    groups: dict[tuple[str, str], list[Holder]] = {}
    for one in processes:
        groups.setdefault((one.exe or one.name, _script(one.name)), []).append(one)
    found: list[ProgramGroup] = []
    for group in groups.values():
        first = max(group, key=lambda h: h.held)
        shares = [h.pss for h in group if h.pss is not None]
        opened = [h.fds for h in group if h.fds is not None]
        exe = first.exe or ""
        names = {h.name for h in group}
        alone = len(names) == 1 or not exe or exe.startswith("/memfd:")
        name = first.name if alone else exe.rpartition("/")[2]
        found.append(
            ProgramGroup(
                name,
                len(group),
                first.pid,
                sum(h.held for h in group),
                sum(shares) if len(shares) == len(group) else None,
                sum(h.anon for h in group),
                sum(h.threads for h in group),
                sum(opened) if len(opened) == len(group) else None,
                sum(h.growth or 0.0 for h in group),
            )
        )
    return tuple(sorted(found, key=lambda p: -p.held))


def _script(name: str) -> str:
    """Return what tells programs of one interpreter apart; "" for titles as of "nginx: worker"."""
    return name if " " in name and ": " not in name else ""


def render_triage(triage: Triage, ink: Ink, *, height: int | None = None) -> str:
    """Return the screen, verdict first and the next command last, ending in a newline.

    The list of programs is shortened to fit into `height` lines.
    """
    urgent = any(o.urgent for o in triage.oddities)
    colour = ALARM if urgent else WARNING if triage.oddities else CALM
    head = ink.paint_all(colour, ink.wrap(f"leakscope: {headline(triage)}."))
    place = len(head)
    for oddity in triage.oddities[:_ODDITIES]:
        said = ink.wrap(f"! {oddity.sentence}", hanging="  ")
        head += ink.paint_all(ALARM if oddity.urgent else WARNING, said)
        head += step_lines(oddity.next_step, ink, "  ", label="")
    if len(triage.oddities) > _ODDITIES:
        head.append(f"  and {len(triage.oddities) - _ODDITIES} more: see --json")
    head += ["", ink.bold(f"Where the memory is ({bytes_text(triage.total)} in all)")]
    for line in triage.lines:
        if line.bytes or line.name == "unexplained":
            row = f"  {bytes_text(line.bytes):>9}  {line.name:<28}  {_whose(line) or line.what}"
            head.append(clip_right(row, ink.width, ink.ellipsis))
    foot = [""]
    foot += [x for note in triage.notes for x in ink.wrap(f"Note: {note}.", hanging="      ")]
    apart = f"Two looks {triage.apart_s:.1f} s apart cannot tell a leak."
    foot += [*ink.wrap(apart), *step_lines(triage.next_step, ink)]
    rows = _PROGRAMS if height is None else height - len(head) - len(foot) - 3
    lines = [*head, *_table(triage, ink, min(_PROGRAMS, max(rows, _FEWEST))), *foot]
    if len(lines) > _SCREEN:  # who reads from the top sees it as well
        lines[place:place] = step_lines(triage.next_step, ink)
    return "\n".join(lines) + "\n"


def headline(triage: Triage) -> str:
    """Return the verdict in one line."""
    used = triage.total - triage.available
    share = percent_text(used, triage.total)
    text = f"{bytes_text(used)} of {bytes_text(triage.total)} in use ({share})"
    if triage.cgroup is not None:
        _, held, limit = triage.cgroup
        part, room = percent_text(held, limit), bytes_text(limit)
        here = f"{bytes_text(held)} of the {room} of this cgroup in use ({part})"
        text = f"{here}; on the machine {text}"
    return f"{text}; {_verdict(triage.oddities)}"


def _table(triage: Triage, ink: Ink, limit: int) -> list[str]:
    columns = f"  {'PSS':>9} {'anonymous':>9} {'growth':>11} {'fds':>6} {'threads':>7}  program"
    lines = ["", ink.bold(columns)]
    programs = programs_of(triage.processes)
    # The fastest growers are always shown, however small they are.
    fast = sorted((p for p in programs if p.growth >= _GROWS), key=lambda p: -p.growth)[:_FASTEST]
    shown = [p for p in programs if p in fast or p in programs[: max(0, limit - len(fast))]]
    for one in shown[:limit]:
        pss = "?" if one.pss is None else bytes_text(one.pss)
        fds = "?" if one.fds is None else count_text(one.fds)
        moves = abs(one.growth) >= _GROWS
        grows = ("+" if one.growth > 0 else "") + rate_text(one.growth) if moves else ""
        row = f"  {pss:>9} {bytes_text(one.anon):>9} {grows:>11} {fds:>6}"
        row += f" {count_text(one.threads):>7}"
        many = f" x{one.processes}, pid {one.pid}" if one.processes > 1 else f" (pid {one.pid})"
        lines.append(clip_right(f"{row}  {printable(one.name)}{many}", ink.width, ink.ellipsis))
    return lines


def _whose(line: AccountLine) -> str:
    """Name the biggest owner, and how many more there are."""
    if not line.owners:
        return ""
    name, size = line.owners[0]
    more = f" and {len(line.owners) - 1} more" if len(line.owners) > 1 else ""
    return f"{bytes_text(size)} {printable(name)}{more}"


def _verdict(oddities: Sequence[Oddity]) -> str:
    if not oddities:
        return "nothing odd at this moment"
    return "one thing is odd" if len(oddities) == 1 else f"{len(oddities)} things are odd"


def to_json(triage: Triage) -> str:
    """Return the same as one JSON document; sizes are bytes."""
    document = asdict(triage)
    for line in document["lines"]:
        line["owners"] = [{"name": printable(name), "bytes": size} for name, size in line["owners"]]
    for holder in document["processes"]:
        holder["name"] = printable(holder["name"])
        holder["exe"] = None if holder["exe"] is None else printable(holder["exe"])
    for oddity in document["oddities"]:
        oddity |= {key: printable(oddity[key]) for key in ("sentence", "next_step")}
    if triage.cgroup is not None:
        document["cgroup"] = (printable(triage.cgroup[0]), *triage.cgroup[1:])
    return json.dumps({"schema": SCHEMA, **document}, indent=1) + "\n"
