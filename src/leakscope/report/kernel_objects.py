# SPDX-License-Identifier: Apache-2.0
"""What fills a slab cache, and who refers to one object: verdict first, next command last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope.report.ink import CALM, WARNING
from leakscope.report.steps import step_lines
from leakscope.report.text import clip_right, printable
from leakscope.words import bytes_text, count_text, plural

if TYPE_CHECKING:
    from leakscope.model.kernel_objects import CacheObjects, KernelObject
    from leakscope.report.ink import Ink

__all__ = ["render_cache", "render_object"]

_SHOWN = 12
_KINDS = {
    "variable": "the variable",
    "object": "an object of",
    "stack": "the stack of",
    "task": "the task",
    "buffer": "a buffer (vmalloc) of",
    "page": "",
}


def render_cache(cache: CacheObjects, ink: Ink, again: str) -> str:
    """Return the screen; `again` is the command that looks at one object."""
    verdict = (
        f"{cache.name} holds {plural(cache.allocated, 'object')} of"
        f" {bytes_text(cache.object_bytes)}, {bytes_text(cache.bytes)}"
    )
    most = cache.looks[0] if cache.looks else None
    if most is not None:
        whom = f"{'all' if most.count == cache.read else count_text(most.count)} of them point"
        if cache.read == 1:
            whom = "it points"
        named = most.names[0].partition(" ")[2] if most.names else "nothing that has a name"
        verdict += f"; {whom} to {named}"
    lines = ink.paint_all(CALM, ink.wrap(f"leakscope: {printable(verdict)}"))
    lines.append(f"Linux {printable(cache.release)}, {printable(cache.source)}")
    if cache.others:
        others = printable(", ".join(cache.others))
        lines += ink.wrap(f"Objects of these caches are kept in it as well: {others}.")
    if cache.looks:
        lines += ["", "Objects by what they point to:"]
    for look in cache.looks[:_SHOWN]:
        size = bytes_text(look.count * cache.object_bytes)
        names = printable(", ".join(look.names) or "nothing that has a name")
        row = f"  {count_text(look.count):>9} {size:>10}  {look.example:#x}  {names}"
        lines.append(clip_right(row, ink.width, ink.ellipsis))
    if cache.read < cache.allocated:
        lines += ["", *ink.wrap(f"Note: {plural(cache.read, 'object')} were looked at.")]
    step = "nothing is in it"
    if most is not None:
        step = f"who refers to one of them: {again} {most.example:#x}"
    return "\n".join([*lines, "", *step_lines(step, ink)]) + "\n"


def render_object(one: KernelObject, ink: Ink) -> str:
    """Return the screen on one object and its referrers."""
    what = f"the object of {one.cache} at {one.address:#x} ({bytes_text(one.object_bytes)})"
    if one.is_lost:
        verdict = f"nothing refers to {what}: it is lost"
    else:
        atleast = "at least " if one.more else ""
        verdict = f"{atleast}{plural(len(one.referrers), 'word')} refer to {what}"
        if len(one.referrers) == 1 and not one.more:
            verdict = f"one word refers to {what}"
    colour = WARNING if one.is_lost else CALM
    lines = ink.paint_all(colour, ink.wrap(f"leakscope: {printable(verdict)}"))
    lines.append(f"Linux {printable(one.release)}, {printable(one.source)}")
    if one.referrers:
        lines += ["", "Referred to from:"]
    for each in one.referrers[:_SHOWN]:
        into = f" (to +{each.into:#x})" if each.into else ""
        text = f"  {each.address:#x}  {_KINDS.get(each.kind, each.kind)} {each.name}{into}"
        lines.append(clip_right(printable(" ".join(text.split(" "))), ink.width, ink.ellipsis))
    if len(one.referrers) > _SHOWN:
        lines.append(f"  and {len(one.referrers) - _SHOWN:,} more")
    if one.uncounted:
        told = ", ".join(f"{count:,} {where}" for where, count in one.uncounted)
        lines += ["", *ink.wrap(f"Words that do not count: {told}.")]
    if one.live:
        lines += ["", *ink.wrap(
            "Note: the kernel ran while it was read"
            + (" (twice)" if one.is_lost else "")
            + ", and a pointer that is kept in another form (packed, as a physical address) is not"
            " seen."
        )]  # fmt: skip
    step = "see whether they are in use, or only forgot to let go"
    if one.is_lost:
        step = f"which code allocated it: sudo leakscope kernel scan --dump {one.address:#x}"
    return "\n".join([*lines, *step_lines(step, ink)]) + "\n"
