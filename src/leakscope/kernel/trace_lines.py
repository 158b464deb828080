# SPDX-License-Identifier: Apache-2.0
"""Files and lines for the stacks of a trace, where the kernel's debug information is found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope.kernel.trace_frames import KERNEL
from leakscope.model.frames import FrameName
from leakscope.proc.kernel_frames import KernelFrame

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from leakscope.kernel.lines import KernelLines
    from leakscope.proc.kallsyms import KernelSymbol

__all__ = ["named_places"]


def named_places(
    places: Collection[KernelSymbol], lines: KernelLines
) -> Mapping[KernelSymbol, Sequence[FrameName]]:
    """Return the frames at those places that `lines` knows, inlined functions first."""
    asked = {
        KernelFrame(place.name, place.offset, place.size, place.module): place for place in places
    }
    found = {}
    for frame, chain in lines.resolve(asked).items():
        symbol = f"{frame.function}+{frame.offset or 0:#x}"
        found[asked[frame]] = [
            FrameName(
                function=one.function,
                symbol=symbol,
                file=one.file,
                line=one.line,
                module_path=frame.module or KERNEL,
                inlined=one.inlined,
            )
            for one in chain
        ]
    return found
