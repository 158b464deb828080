# SPDX-License-Identifier: Apache-2.0
"""Who refers to an object of the kernel: every word of its memory that points to it, or into it.

All memory is searched, so a copy on a free page or in a program is met as well; only words in
memory that the kernel uses count. kmemleak takes the same way, but for the pages, which it does
not look at, and says nothing of where the words are.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from leakscope.errors import TargetError
from leakscope.model.kernel_objects import KernelObject, Referrer

if TYPE_CHECKING:
    from leakscope.kernel.live import KernelMemory

__all__ = ["read_object"]

_MOST_WORDS = 4096
_NOTES = ("kmemleak_object", "kmemleak_scan_area")
_STALE, _PROGRAMS = "in free memory", "in memory of programs and files"
_OWN, _SELF = "in notes of kmemleak", "in the object itself"
_CHANGED = "gone when looked at again"
_LARGEST_ORDER = 10


def read_object(memory: KernelMemory, address: int) -> KernelObject:
    """Return the object at `address` and its referrers. Raises `TargetError` where there is none.

    A kernel that runs moves pointers while it is read: where none is found, it is read again.
    """
    found = _search(memory, address)
    return _search(memory, address) if memory.live and found.is_lost else found


def _search(memory: KernelMemory, address: int) -> KernelObject:
    import drgn
    from drgn.helpers.linux.slab import slab_object_info

    program = memory.program
    try:
        info = slab_object_info(program, address)
    except (drgn.FaultError, LookupError, ValueError) as error:
        raise TargetError(f"{address:#x} cannot be looked up: {error}") from error
    if info is None:
        raise TargetError(
            f"there is no object of a slab cache at {address:#x}",
            hint="kmemleak's report has addresses, and so has `leakscope kernel objects CACHE`.",
        )
    cache = info.slab_cache.name.string_().decode("utf-8", "replace")
    if not info.allocated:
        raise TargetError(
            f"the object of {cache} at {address:#x} is free: nobody has to refer to it"
        )
    start, size = int(info.address), int(info.slab_cache.object_size)
    words: list[tuple[int, int]] = []
    try:
        for word, value in program.search_memory_u64((start, start + size - 1)):
            words.append((int(word), int(value)))
            if len(words) >= _MOST_WORDS:
                break
    except drgn.FaultError as error:
        raise TargetError(f"the kernel's memory cannot be searched: {error}") from error
    referrers, uncounted = _Places(program, start, size).sort(words)
    return KernelObject(
        source=memory.source,
        release=memory.release,
        live=memory.live,
        address=start,
        cache=cache,
        object_bytes=size,
        referrers=tuple(referrers),
        uncounted=tuple(uncounted.most_common()),
        more=len(words) >= _MOST_WORDS,
    )


class _Places:
    """Tells what words lie in."""

    def __init__(self, program: Any, start: int, size: int) -> None:
        self._program = program
        self._start = start
        self._size = size
        self._cache: dict[Any, Any] = {}
        self._free = self._mark_of_free_pages()

    def sort(self, words: list[tuple[int, int]]) -> tuple[list[Referrer], Counter[str]]:
        """Return the words that count, and how many do not, by the reason."""
        from drgn.helpers.linux.mm import in_direct_map

        uncounted: Counter[str] = Counter()
        direct: list[tuple[int, int]] = []
        mapped: list[tuple[int, int]] = []
        for word in words:
            (direct if in_direct_map(self._program, word[0]) else mapped).append(word)
        # What is mapped elsewhere is met at its place in the direct map once more.
        seen = {self._physical(at) for at, _ in mapped}
        left = mapped + [word for word in direct if self._physical(word[0]) not in seen]
        found = []
        for at, value in left:
            if self._start <= at < self._start + self._size:
                uncounted[_SELF] += 1
            elif not self._still(at, value):
                uncounted[_CHANGED] += 1
            else:
                kind, name = self._place(at)
                if kind:
                    found.append(Referrer(kind, name, at, value - self._start))
                else:
                    uncounted[name] += 1
        found.sort(key=lambda r: (r.kind, r.name, r.address))
        return found, uncounted

    def _still(self, at: int, value: int) -> bool:
        """Whether the word is there still.

        The page through which /proc/kcore copies is met as well, with what was copied last: that
        is something else after a read of another page.
        """
        import drgn

        try:
            self._program["init_uts_ns"].name.release.string_()
            return bool(self._program.read_u64(at) == value)
        except drgn.FaultError:
            return False

    def _physical(self, at: int) -> int | None:
        import drgn
        from drgn.helpers.linux.mm import follow_phys, in_direct_map, virt_to_phys

        try:
            if in_direct_map(self._program, at):
                return int(virt_to_phys(self._program, at))
            return int(follow_phys(self._program["init_mm"].address_of_(), at))
        except (drgn.FaultError, LookupError, NotImplementedError, ValueError):
            return None

    def _place(self, at: int) -> tuple[str, str]:
        """Return kind and name of what the word at `at` lies in; "" and the reason if not counted."""
        import drgn
        from drgn.helpers.common.memory import IdentifiedSymbol, identify_address_all
        from drgn.helpers.linux import common

        try:
            identities = list(identify_address_all(self._program, at, cache=self._cache))
        except (drgn.FaultError, LookupError, ValueError):
            identities = []
        for one in identities:
            if isinstance(one, IdentifiedSymbol):
                return "variable", f"{one.symbol.name}+{at - one.symbol.address:#x}"
            if isinstance(one, common.IdentifiedTaskStack):
                task = one.task
                return "stack", f"{_text(task.comm)} (pid {int(task.pid)})"
            if isinstance(one, common.IdentifiedTaskStruct):
                return "task", f"{_text(one.task.comm)} (pid {int(one.task.pid)})"
            if isinstance(one, common.IdentifiedSlabObject):
                return self._in_slab(one, at)
            if isinstance(one, common.IdentifiedVmap):
                return "buffer", self._caller(one)
        return self._in_page(at)

    def _in_slab(self, one: Any, at: int) -> tuple[str, str]:
        info = one.slab_object_info
        cache = _text(info.slab_cache.name)
        if not info.allocated:
            return "", _STALE
        if cache in _NOTES:
            return "", _OWN
        return "object", f"{cache}+{at - int(info.address):#x} of {int(info.address):#x}"

    def _caller(self, one: Any) -> str:
        try:
            caller = int(one.vm_struct.caller)
            return str(self._program.symbol(caller).name)
        except (LookupError, ValueError):
            return "an unknown function"

    def _in_page(self, at: int) -> tuple[str, str]:
        """Tell a page by what the kernel knows of it; what it does not know counts."""
        import drgn
        from drgn.helpers.linux.mm import compound_head, virt_to_page

        try:
            page = virt_to_page(self._program, at)
            if self._is_free(page):
                return "", _STALE
            if int(compound_head(page).mapping):
                return "", _PROGRAMS
        except (drgn.FaultError, LookupError, AttributeError, NotImplementedError, ValueError):
            pass
        return "page", f"a page of the kernel at {at & ~0xFFF:#x}"

    def _mark_of_free_pages(self) -> int | None:
        """Return what page_type (before Linux 6.9: the mapcount) of a free block is."""
        try:
            text = self._program["VMCOREINFO"].string_()
        except LookupError:
            return None
        for line in text.split(b"\n"):
            name, _, value = line.partition(b"=")
            if name == b"NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)" and len(value) < 16:
                return int(value) & 0xFFFFFFFF
        return None

    def _is_free(self, page: Any) -> bool:
        """Whether the page is in a block of the page allocator's free lists."""
        from drgn.helpers.linux.mm import page_to_pfn, pfn_to_page

        if self._free is None:
            return False
        number = int(page_to_pfn(page))
        for order in range(_LARGEST_ORDER + 1):
            head = pfn_to_page(self._program, number & ~((1 << order) - 1))
            mark = int(head._mapcount.counter) & 0xFFFFFFFF  # noqa: SLF001 - the kernel's name
            same = mark == self._free
            if not self._free & 0xFFFFFF:  # the highest byte tells, since Linux 6.12
                same = mark >> 24 == self._free >> 24
            if same and int(head.private) >= order:
                return True
        return False


def _text(value: Any) -> str:
    return str(value.string_().decode("utf-8", "replace"))
