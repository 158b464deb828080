# SPDX-License-Identifier: Apache-2.0
"""The double scan: what both reports have counts, and nothing else; names outlive their module."""

import json
import os

import pytest

from foreign import findings_of, reached
from leakscope._analysis import analyse
from leakscope.errors import TargetError
from leakscope.kernel.clock import Ticks, read_ticks
from leakscope.kernel.kmemleak import Kmemleak, scan_twice
from leakscope.kernel.lost import record_lost
from leakscope.kernel.module_map import ModuleMap
from leakscope.kernel.saving import save_report
from leakscope.report.terminal import render


def object_text(
    address, crc="e72ef6f1", size=32, jiffies=4294892748, frame="open_it+0x4b/0x412 [drv]"
):
    return f"""unreferenced object 0x{address:x} (size {size}):
  comm "busybox", pid 41, jiffies {jiffies}
  hex dump (first 32 bytes):
    c1 00 00 00 04 00 00 00 40 00 00 00 00 00 00 00  ........@.......
  backtrace (crc {crc}):
    kmemleak_alloc+0x27/0x2a
    __kmalloc_cache_noprof+0x10e/0x189
    {frame}
    do_one_initcall+0x7e/0x153
"""  # fmt: skip


class Reports(Kmemleak):
    """A control file whose report changes from one reading to the next."""

    def __init__(self, *texts):
        super().__init__("/nowhere")
        self.texts, self.commands = list(texts), []

    def command(self, text):
        self.commands.append(text)

    def lines(self):
        return iter(self.texts.pop(0).split("\n"))


def scanned(*texts, name=None):
    waits = []
    reports = Reports(*texts)
    seen = scan_twice(reports, wait=waits.append, name=name)
    return seen, reports, waits


def test_only_what_both_reports_have_with_one_checksum_is_lost():
    same, gone, changing, new, reused = 0xFFFF888000001000, 0xFFFF888000002000, 0xFFFF888000003000, 0xFFFF888000004000, 0xFFFF888000005000  # fmt: skip
    first = object_text(same) + object_text(gone) + object_text(changing, "1") + object_text(reused)
    second = (
        object_text(same) + object_text(changing, "2") + object_text(new)
        + object_text(reused, jiffies=4294999999)
    )  # fmt: skip
    seen, reports, waits = scanned(first, second)
    assert (seen.first, seen.second, seen.kept, seen.gone, seen.changed, seen.new) == (4, 4, 1, 1, 2, 1)  # fmt: skip
    assert reports.commands == ["scan", "scan", "scan"]
    assert max(waits) > 5
    (group,) = seen.groups
    assert (group.count, group.bytes, group.kind) == (1, 32, "kmalloc")
    assert [f.function for f in group.frames] == ["open_it", "do_one_initcall"]
    notes = " ".join(record_lost(seen).coverage.notes)
    assert "1 were found again" in notes
    assert "2 changed meanwhile" in notes


def test_objects_of_one_stack_are_one_finding_with_their_ages():
    text = "".join(
        object_text(0xFFFF888000001000 + 64 * n, jiffies=4294892748 + n) for n in range(500)
    )
    seen, _, _ = scanned(text, text)
    recording = record_lost(seen, Ticks(4294892748 + 25_000, 250))
    assert reached(recording)[0] == (16_000, 500)
    (leak,) = findings_of(recording).leaks
    assert (leak.source.function, leak.source.module_path) == ("open_it", "drv")
    assert leak.verdict == "lost"
    assert any("open_it 98 s to 2 min" in note or "open_it 98 s to 100" in note for note in recording.coverage.notes), recording.coverage.notes  # fmt: skip


def test_a_modules_code_comes_before_the_kernels_helpers():
    inner = (
        "kobject_set_name_vargs+0x1/0x99\n    device_add+0x1/0x99\n    probe_it+0x4b/0x412 [drv]"
    )
    text = object_text(0xFFFF888000001000, frame=inner)
    seen, _, _ = scanned(text, text)
    (leak,) = findings_of(record_lost(seen)).leaks
    assert leak.source.function == "probe_it"


def test_what_was_reported_before_is_left_out_and_counted():
    old = object_text(0xFFFF888000001000) + object_text(0xFFFF888000002000)
    known = Reports(old).reported()
    again = object_text(0xFFFF888000002000, crc="5")  # it changed, and is the same object
    reused = object_text(0xFFFF888000001000, jiffies=4294999999)
    text = object_text(0xFFFF888000003000) + again + reused
    seen = scan_twice(Reports(text, text), wait=lambda _: None, known=known)
    assert (seen.kept, seen.known, seen.gone) == (2, 1, 0)
    assert any("1 object that kmemleak had reported" in n for n in record_lost(seen).coverage.notes)


def test_what_is_known_to_be_false_is_suppressed_and_counted(tmp_path):
    (tmp_path / "known.supp").write_text("leak:open_it\n")
    text = object_text(0xFFFF888000001000) + object_text(
        0xFFFF888000002000, frame="other+0x1/0x2 [b]"
    )
    seen, _, _ = scanned(text, text)
    found = analyse(record_lost(seen), suppressions=[tmp_path / "known.supp"], debuginfod=False)
    assert [f.source.function for f in found.leaks] == ["other"]
    assert [(s.name, s.blocks, s.bytes) for s in found.suppressions] == [("leak:open_it", 1, 32)]


def test_a_kernel_is_not_told_to_be_run_again():
    seen, _, _ = scanned("", "")
    text = render(findings_of(record_lost(seen)))
    assert "sudo leakscope kernel watch" in text
    assert "leakscope run" not in text


def test_kernels_without_checksums_are_compared_by_time_of_allocation():
    text = object_text(0xFFFF888000001000).replace(" (crc e72ef6f1)", "")
    seen, _, _ = scanned(text, text)
    assert (seen.kept, seen.checked) == (1, False)


def test_an_object_whose_address_is_hidden_is_counted_and_not_called_lost():
    text = object_text(0x1).replace("0x1 (size", "(____ptrval____) (size")
    seen, _, _ = scanned(text, text)
    assert (seen.kept, seen.unkept) == (0, 1)


def unloaded(address, jiffies=4294892748):
    return object_text(address, frame="0xffffffffa000004b", jiffies=jiffies)


def test_code_of_a_module_that_is_gone_is_named_from_what_was_seen_before(tmp_path):
    loaded = object_text(0xFFFF888000001000) + object_text(0xFFFF888000002000)
    before = ModuleMap("boot")
    scanned(loaded, loaded, name=before.meet)
    assert before.save(tmp_path)
    kept = json.loads((tmp_path / "kernel-modules.json").read_text())
    after = ModuleMap("boot")
    after._read(tmp_path / "kernel-modules.json")
    # The first object was seen with its name, the third has the same address in its stack.
    text = unloaded(0xFFFF888000001000) + unloaded(0xFFFF888000009000)
    seen, _, _ = scanned(text, text, name=after.meet)
    (group,) = seen.groups
    assert (group.count, group.frames[0].function, group.frames[0].module) == (2, "open_it", "drv")
    assert os.stat(tmp_path / "kernel-modules.json").st_mode & 0o077 == 0
    assert kept["boot_id"] == "boot"


def test_code_of_a_module_that_is_gone_is_named_by_its_functions():
    known = ModuleMap("boot")
    known.modules = {
        "old": {"start": 0xFFFFFFFFA0000000, "seen": 1.0, "functions": [(0xFFFFFFFFA0000000, "wrong")]},
        "drv": {"start": 0xFFFFFFFFA0000000, "seen": 2.0,
                "functions": [(0xFFFFFFFFA0000000, "first"), (0xFFFFFFFFA0000040, "second")]},
    }  # fmt: skip
    text = unloaded(0xFFFF888000001000)
    seen, _, _ = scanned(text, text, name=known.meet)
    frame = seen.groups[0].frames[0]
    assert (frame.function, frame.offset, frame.module) == ("second", 0xB, "drv")
    known.loaded, known._symbols = frozenset({"drv", "old"}), None  # the kernel would have named it
    seen, _, _ = scanned(text, text, name=known.meet)
    assert seen.groups[0].frames[0].function is None
    assert any("unloaded" in note for note in record_lost(seen).coverage.notes)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"boot_id": "boot"}', '{"boot_id": "boot", "modules": {"a": 1}, "stacks": [], "learnt": {}}',
             '{"boot_id": "other", "modules": {"x": {"start": 0, "seen": 0, "functions": [[1, "f"]]}}, "stacks": {}, "learnt": {}}',
             '{"boot_id": "boot", "modules": {}, "stacks": {}, "learnt": {"zz": "f+0x1/0x2"}}'],
)  # fmt: skip
def test_a_map_that_is_damaged_or_of_another_boot_is_not_used(tmp_path, text):
    (tmp_path / "kernel-modules.json").write_text(text)
    found = ModuleMap("boot")
    found._read(tmp_path / "kernel-modules.json")
    assert (found.modules, found.learnt) == ({}, {})


def test_a_map_of_somebody_else_is_not_used(tmp_path):
    (tmp_path / "real").write_text('{"boot_id": "boot", "modules": {"x": {"start": 0, "seen": 0, "functions": [[1, "f"]]}}, "stacks": {}, "learnt": {}}')  # fmt: skip
    os.symlink("real", tmp_path / "kernel-modules.json")
    found = ModuleMap("boot")
    found._read(tmp_path / "kernel-modules.json")
    assert found.modules == {}


def test_a_report_is_saved_whole_before_it_is_cleared(tmp_path):
    path, count = save_report(Reports(object_text(1) + object_text(2)), tmp_path)
    assert count == 2
    assert path.read_text().count("unreferenced object") == 2
    assert path.stat().st_mode & 0o077 == 0
    assert save_report(Reports(""), tmp_path) == (None, 0)
    with pytest.raises(TargetError, match="not cleared"):
        save_report(Reports(object_text(1)), tmp_path / "missing")


def test_the_kernels_clock_is_that_of_this_machine():
    ticks = read_ticks()
    assert ticks.hz in {100, 250, 300, 1000}
    assert ticks.age_s(ticks.now - 5 * ticks.hz) == 5
    assert ticks.age_s(ticks.now + 10_000_000) is None
