# SPDX-License-Identifier: Apache-2.0
"""Saved tables of memory: real ones with their right values, courses, and odd ones."""

import contextlib
import json
import subprocess
import time
from pathlib import Path

import jsonschema
import pytest

import leakscope.report
from foreign import SAMPLES, written
from leakscope.cli import main
from leakscope.errors import RecordingError
from leakscope.formats import foreign_format, is_table, read_foreign, read_tables
from leakscope.model.series import TrendVerdict
from leakscope.proc.status import read_status
from leakscope.workflow.snapshots import judge_snapshots

LAB = SAMPLES.parent / "kernel-lab" / "samples-6.12"
SCHEMAS = Path(leakscope.report.__file__).parent / "schemas"
KB = 1024


def tables(name):
    return read_tables(SAMPLES / name)


def facts(table):
    return {name: value for name, value, _ in table.facts}


def rows(table):
    return {row.name: row for row in table.rows}


def grown(course):
    return {row.name: (row.bytes, row.count) for row in course.grown}


@pytest.mark.parametrize("name", ["pmap-x.txt", "pmap-X.txt", "pmap-XX.txt"])
def test_pmap_with_what_is_resident(name):
    (table,) = tables(f"process-memory/{name}")
    told = facts(table)
    assert (table.subject.pid, table.subject.name) == (7994, "leaky")
    assert (table.total, table.total_count, told["size"]) == (1168 * KB, 24, 2480 * KB)
    dirty = told.get("Dirty", told.get("Anonymous"))
    assert dirty == 104 * KB
    assert told.get("Pss", 139 * KB) == 139 * KB
    assert not any("total" in note for note in table.notes)


def test_pmap_plain():
    (table,) = tables("process-memory/pmap.txt")
    assert (table.total, table.of) == (2480 * KB, "of address space")


def test_pmap_of_an_old_procps_without_a_last_newline():
    (table,) = tables("process-memory/pmap-x-2014-chunkserver.txt")
    told = facts(table)
    assert (told["mappings"], told["size"]) == (70, 1_835_248 * KB)
    assert (told["RSS"], told["Dirty"]) == (187_920 * KB, 185_492 * KB)


def test_pmap_that_lists_each_mapping_twice(tmp_path):
    text = (
        "5:   /bin/a b\nAddress           Kbytes     RSS   Dirty Mode   Mapping\n"
        "0000000000400000      48      40      12 r-x--  a\n0000000000400000       0       0       0 r-x--  a\n"
        "----------------  ------  ------  ------\ntotal kB              48      40      12\n"
    )
    (table,) = read_tables(written(tmp_path, text))
    assert (table.total, table.total_count) == (40 * KB, 1)
    assert any("twice" in note for note in table.notes)


def test_smaps_and_its_rollup():
    (table,) = tables("process-memory/smaps.txt")
    told = facts(table)
    assert (table.total, told["mappings"], told["Pss"]) == (1168 * KB, 24, 139 * KB)
    assert told["Private_Dirty"] == told["Anonymous"] == 104 * KB
    (rollup,) = tables("process-memory/smaps_rollup.txt")
    assert (facts(rollup)["Rss"], facts(rollup)["Pss"]) == (1168 * KB, 141 * KB)


def test_status():
    (table,) = tables("process-memory/status.txt")
    assert rows(table)["RssAnon"].bytes == 104 * KB
    assert (table.total, table.subject.pid, facts(table)["Threads"]) == (1168 * KB, 7994, 1)


def test_free():
    series = tables("process-memory/free-series.txt")
    assert [facts(one)["used"] for one in series] == [
        1_893_656 * KB,
        1_936_520 * KB,
        1_980_932 * KB,
    ]
    (wide,) = tables("process-memory/free-hw.txt")
    assert facts(wide)["available"] == 21 << 30
    assert facts(wide)["swap total"] == 0
    assert any("rounded" in note for note in wide.notes)


@pytest.mark.parametrize(
    "text",
    [
        (
            "              gesamt        benutzt     frei       gemns.  Puffer/Cache verfügbar\n"
            "Speicher:       15Gi       1,5Gi        12Gi        54Mi       1,8Gi        13Gi\n"
            "Swap:          2,0Gi          0B       2,0Gi\n"
        ),
        (
            "             total       used       free     shared    buffers     cached\n"
            "Mem:      16777216    1572864   15204352          0       1024       2048\n"
            "-/+ buffers/cache:    1569792   15207424\nSwap:      2097152          0    2097152\n"
        ),
    ],
)
def test_free_of_other_languages_and_ages(text, tmp_path):
    (table,) = read_tables(written(tmp_path, text))
    assert facts(table)["used"] == 3 << 29
    assert facts(table)["swap total"] == 2 << 30


@pytest.mark.parametrize(
    ("name", "free"), [("vmstat-w.txt", 18_807_156), ("vmstat-t.txt", 18_743_388)]
)
def test_the_first_line_of_vmstat_is_left_out(name, free):
    series = tables(f"process-memory/{name}")
    assert [facts(one)["free"] for one in series] == [free * KB] * 2
    if name == "vmstat-t.txt":
        assert series[1].time_ns - series[0].time_ns == 1_000_000_000


def test_meminfo():
    (machine,) = tables("kernel-proc/rhcos4-meminfo.txt")
    told = facts(machine)
    assert told["MemTotal"] == 8_164_548 * KB
    assert (told["Slab"], told["SUnreclaim"]) == (199_948 * KB, 104_700 * KB)
    (course,) = judge_snapshots([machine]).courses
    assert sum(size for _, size, _ in course.account) == told["MemTotal"]
    assert len(tables("process-memory/meminfo-series.txt")) == 3
    (buddy,) = tables("kernel-proc/rhcos4-buddyinfo.txt")
    assert rows(buddy)["node 0, zone DMA"].count == 12


def test_slabinfo_and_slabtop():
    (table,) = tables("kernel-proc/rhcos4-slabinfo.txt")
    assert (len(table.rows), table.total) == (142, 49_100 * 4096)
    assert (table.rows[0].name, table.rows[0].bytes) == ("xfs_inode", 7_632 * 4096)
    (top,) = tables("kernel-proc/slabtop-o-6.18.txt")
    assert rows(top)["buffer_head"].bytes == 44_560 * KB
    (course,) = judge_snapshots(
        [*read_tables(LAB / "slabinfo.before.txt"), *read_tables(LAB / "slabinfo.after.txt")]
    ).courses
    assert grown(course)["kmalloc-64"] == (17 * 4096, 354)


def test_vmallocinfo():
    (table,) = tables("kernel-proc/rhcos4-vmallocinfo.txt")
    told = facts(table)
    assert told["areas in all"] == 616
    assert told["address space of all areas, guard pages included"] == 71_294_976
    heaviest = table.rows[0]
    assert heaviest.name == "netvsc_device_add [hv_netvsc]"
    assert dict(heaviest.told)["address space"] == 17_866_752
    lab = rows(read_tables(LAB / "vmallocinfo.txt")[0])
    assert lab["kmemleak_test_init [kmemleak_test]"].count == 5


def test_allocinfo():
    looks = [*read_tables(LAB / "allocinfo.before.txt"), *read_tables(LAB / "allocinfo.after.txt")]
    module = "kmemleak_test_init samples/kmemleak/kmemleak-test.c:68 [kmemleak_test]"
    (course,) = judge_snapshots(looks).courses
    found = (
        next(row for row in course.last.rows if row.name == module)
        if any(row.name == module for row in course.last.rows)
        else None
    )
    assert course.last.total == sum(row.bytes for row in course.last.rows)
    assert grown(course)["__rb_allocate_pages kernel/trace/ring_buffer.c:2207"] == (352 * 4096, 352)
    assert found is None or found.count == 10


@pytest.mark.parametrize(
    ("line", "size"),
    [
        ("           -64        2 a/b.c:3 func:f ", -64),
        ("        3.8M      953 mm/memory.c:4214 func:f", int(3.8 * (1 << 20))),
        ("        64        2 a/b.c:3 [mod] func:f accurate:no ", 64),
    ],
)
def test_allocinfo_of_other_forms(line, size, tmp_path):
    (table,) = read_tables(written(tmp_path, f"allocinfo - version: 2.0\n#  <size>\n{line}\n"))
    assert table.total == size


def test_a_sorted_allocinfo_with_its_head_in_the_middle(tmp_path):
    text = "  1 1 a.c:1 func:f \nallocinfo - version: 1.0\n  9 2 b.c:1 func:g \n"
    (table,) = read_tables(written(tmp_path, text))
    assert (table.total, len(table.rows)) == (10, 2)


def test_page_owner_in_its_layouts():
    (table,) = tables("kernel-proc/page_owner-memcg-offlined.txt")
    assert (table.total, table.total_count) == (4096, 1)
    assert facts(table)["by podman"] == facts(table)["charged to cgroups that are gone"] == 4096
    assert table.rows[0].frames[0].function == "shmem_alloc_page"
    (stacks,) = read_tables(LAB / "page_owner.show_stacks.txt")
    assert stacks.rows[0].frames[0].function == "__rb_allocate_pages"
    assert stacks.rows[0].count == 352
    (pages,) = read_tables(LAB / "page_owner.txt")
    assert rows(pages)["init_page_owner < page_ext_init < mm_core_init"].count == 107


@pytest.mark.parametrize(
    ("head", "pages"), [("3 times:\n", 12), ("3 times, 12 pages:\n", 12), ("", 4)]
)
def test_what_page_owner_sort_makes_of_it(head, pages, tmp_path):
    text = f"{head}Page allocated via order 2, mask 0x0()\n f+0x1/0x2\n\n"
    (table,) = read_tables(written(tmp_path, text))
    assert table.total_count == pages


def test_alloc_traces():
    (table,) = read_tables(LAB / "slab.dentry.alloc_traces.txt")
    assert (table.rows[0].count, table.rows[0].frames[1].function) == (595, "d_alloc")
    assert table.rows[0].bytes is None


def test_class_histograms():
    before, after = (tables(f"jmap-histo/jdk17-histo-{n}.txt")[0] for n in ("before", "after"))
    assert (before.total_count, before.total, len(before.rows)) == (14_455, 688_048, 237)
    assert (after.total_count, after.total, len(after.rows)) == (20_316, 1_045_896, 280)
    (course,) = judge_snapshots([before, after]).courses
    assert grown(course)["Leak$Session"] == (24_000, 1_000)
    assert "byte[]" in rows(after)


def test_native_memory_tracking():
    (summary,) = tables("nmt/jdk17-nmt-summary.txt")
    assert (summary.total, summary.subject.pid) == (92_163 * KB, 8297)
    assert sum(row.bytes for row in summary.rows) == summary.total
    (rounded,) = tables("nmt/jdk17-nmt-summary-MB.txt")
    assert (rounded.total, len(rounded.rows)) == (94 << 20, 10)
    (course,) = judge_snapshots(tables("nmt/jdk17-nmt-summary-diff.txt")).courses
    assert course.last.total - course.snapshots[0].total == 8_915 * KB
    assert len(course.last.rows) == 19  # 18 categories, and what is less than a unit
    assert grown(course)["Other"] == (8_192 * KB, 8)
    assert grown(course)["Thread"][0] == 555 * KB
    threads = next(t for t in course.trends if t.series.metric == "threads")
    assert list(threads.series.values) == [11, 16]
    with pytest.raises(RecordingError, match="Baseline taken"):
        tables("nmt/jdk17-nmt-baseline.txt")


def test_native_memory_tracking_by_stack():
    categories, sites = judge_snapshots(tables("nmt/jdk17-nmt-detail-diff.txt")).courses
    assert grown(categories)["Other"] == (8_192 * KB, 8)
    assert sites.grown[0].frames[0].function == "Unsafe_AllocateMemory0"
    assert (sites.grown[0].bytes, sites.grown[0].count) == (8_192 * KB, 8)


def test_statistics_of_tracemalloc():
    (top,) = tables("python/tracemalloc-top.txt")
    first = top.rows[0]
    assert (first.name, first.bytes, first.count) == ("/tmp/demo/tm.py:5", 209 * KB, 420)
    (course,) = judge_snapshots(tables("python/tracemalloc-diff.txt")).courses
    assert grown(course)["/tmp/demo/tm.py:5"] == (209 * KB, 420)


def meminfo(looks, *, grows=True, dates=False):
    text = ""
    for n in range(looks):
        used = 1_000_000 + (n * 8_000 if grows else n % 2 * 100)
        date = f"Mon Nov 30 {10 + n // 60:02}:{n % 60:02}:00 UTC 2026\n" if dates else ""
        text += (
            f"{date}MemTotal: 8000000 kB\nMemFree: {7_000_000 - used} kB\nAnonPages: {used} kB\n"
        )
    return text


@pytest.mark.parametrize("dates", [False, True])
def test_a_course_gets_the_verdict_of_a_watch(dates, tmp_path):
    found = judge_snapshots(read_tables(written(tmp_path, meminfo(90, dates=dates))))
    assert [trend.series.metric for trend in found.causes] == ["anon"]
    assert (found.causes[0].rate is None) is not dates
    if dates:
        assert found.causes[0].rate == pytest.approx(8_000 * KB * 60, rel=0.05)
    flat = judge_snapshots(read_tables(written(tmp_path, meminfo(90, grows=False, dates=dates))))
    assert flat.causes == ()
    assert TrendVerdict.PLATEAU in {trend.verdict for trend in flat.trends}


def test_files_that_tell_their_times_may_be_named_in_any_order(tmp_path):
    looks = read_tables(written(tmp_path, meminfo(40, dates=True)))
    found = judge_snapshots(reversed(looks))
    assert [trend.series.metric for trend in found.causes] == ["anon"]


def test_a_table_is_a_recording_too():
    (recording,) = read_foreign(SAMPLES / "kernel-proc/rhcos4-slabinfo.txt")
    assert int(recording.sites["live_bytes"].sum()) == 49_100 * 4096
    with pytest.raises(RecordingError, match="does not tell who"):
        read_foreign(SAMPLES / "process-memory/free-series.txt")


def test_mprof(tmp_path):
    text = "CMDLINE python a.py\n" + "".join(
        f"MEM {10 + n}.500000 17000000{n:02}.1000\n" for n in range(5)
    )
    looks = read_tables(written(tmp_path, text))
    assert [one.total for one in looks] == [int((10.5 + n) * (1 << 20)) for n in range(5)]


@pytest.mark.parametrize(
    "text", ["", "total used free shared\n", "slabinfo - version: 2.1\n", "Name:\ta\nState:\tS\n"]
)
def test_what_has_no_table_is_said(text, tmp_path):
    path = written(tmp_path, text)
    if is_table(path):
        with pytest.raises(RecordingError):
            read_tables(path)
    else:
        assert foreign_format(path) is None


@pytest.mark.parametrize(
    "names",
    [["kernel-proc/rhcos4-slabinfo.txt"], ["nmt/jdk17-nmt-detail-diff.txt"],
     ["jmap-histo/jdk17-histo-before.txt", "jmap-histo/jdk17-histo-after.txt"],
     ["process-memory/free-series.txt"]],
)  # fmt: skip
def test_the_document_follows_its_schema(names, capsys):
    schema = json.loads((SCHEMAS / "leakscope-snapshots-1.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    assert main(["report", "--json", *(str(SAMPLES / name) for name in names)]) == 3
    document = json.loads(capsys.readouterr().out)
    jsonschema.validate(document, schema)
    (first, *_) = document["courses"]
    assert first["looks"] == (1 if names[0].endswith("slabinfo.txt") else first["looks"])


@pytest.mark.parametrize(("grows", "status"), [(True, 1), (False, 0)])
def test_exit_statuses_of_a_course(grows, status, tmp_path, capsys):
    path = written(tmp_path, meminfo(90, grows=grows, dates=True))
    assert main(["report", str(path)]) == status
    out = capsys.readouterr().out
    assert ("LEAK  this machine" in out or "LEAK  the machine" in out) is grows
    assert main(["report", str(path), "--every", "x"]) == 2


def test_what_is_in_names_reaches_no_terminal(tmp_path, capsys):
    text = " num     #instances         #bytes  class name\n   1:  3  30 a\x1b[31mb\u202e\nTotal 3 30\n"
    assert main(["report", str(written(tmp_path, text))]) == 3
    assert "\x1b" not in capsys.readouterr().out


def test_a_class_that_leaks_in_many_histograms(tmp_path, capsys):
    for n in range(40):
        rows = [("Session", 100 + 20 * n, 2400 + 480_000 * n), ("[B", 3000, 300_000 + n % 3 * 999)]
        text = " num     #instances         #bytes  class name\n"
        text += "".join(
            f"{k}: {count} {size} {name}\n" for k, (name, count, size) in enumerate(rows, 1)
        )
        (tmp_path / f"histo.{n}").write_text(text + "Total 1 1\n")
    assert main(["report", str(tmp_path)]) == 1  # in the order in which people number files
    out = capsys.readouterr().out
    assert "1 leak in 40 looks: class Session" in out
    assert "rose in 39 of 39 steps" in out


def test_two_tables_in_one_file(tmp_path):
    text = (SAMPLES / "process-memory/status.txt").read_text() + (
        SAMPLES / "kernel-proc/rhcos4-meminfo.txt"
    ).read_text()
    found = {table.source: table.total for table in read_tables(written(tmp_path, text))}
    assert found == {"/proc/PID/status": 1168 * KB, "/proc/meminfo": 8_164_548 * KB}


def test_pmap_of_busybox(tmp_path):
    text = (
        "5: {a} /bin/a\nAddress                   Kbytes     PSS   Dirty    Swap  Mode  Mapping\n"
        "0000000000400000      48      40      12       0  r-xp  /bin/a\n"
        "----------------  ------  ------  ------  ------\ntotal                 48      40      12       0\n"
    )
    (table,) = read_tables(written(tmp_path, text))
    assert (table.total, facts(table)["size"]) == (40 * KB, 48 * KB)


def test_proc_vmstat(tmp_path):
    text = "nr_free_pages 10\nnr_anon_pages 3\nnr_kernel_stack 8\npgfault 5\n"
    looks = read_tables(written(tmp_path, text * 2))
    assert [facts(one)["nr_anon_pages"] for one in looks] == [3 * 4096] * 2
    assert facts(looks[0])["nr_kernel_stack"] == 8 * KB


def test_what_a_folder_has_that_nobody_reads_is_said(tmp_path, capsys):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_bytes((SAMPLES / "kernel-proc/rhcos4-slabinfo.txt").read_bytes())
    (tmp_path / "c.txt").write_text("nothing of the kind")
    assert main(["report", str(tmp_path)]) == 3
    captured = capsys.readouterr()
    assert "2 looks" in captured.out
    assert "1 file in" in captured.err
    assert "(c.txt)" in captured.err


def test_a_table_behind_a_report_is_mentioned(tmp_path):
    text = (SAMPLES / "valgrind-text/vg319-abort.txt").read_bytes()
    text += (SAMPLES / "kernel-proc/rhcos4-meminfo.txt").read_bytes()
    (recording,) = read_foreign(written(tmp_path, text))
    assert "the file also has the memory of a machine (meminfo)" in recording.coverage.notes[-1]


@pytest.mark.parametrize(
    "options", [[], ["-l"], ["-l", "-t"], ["-t"], ["-v"], ["-w", "-l"], ["-h", "-l"]]
)
def test_swap_is_found_among_other_rows_of_free(tmp_path, options):
    done = subprocess.run(["free", *options], capture_output=True, text=True, check=True)
    (row,) = (line.split() for line in done.stdout.splitlines() if line.startswith("Swap:"))
    (look,) = read_tables(written(tmp_path, done.stdout))
    swap = {name: size for name, size, _ in look.facts if name.startswith("swap ")}
    assert list(swap) == ["swap total", "swap used", "swap free"]
    if "-h" not in options:
        assert list(swap.values()) == [int(word) << 10 for word in row[1:]]
    else:
        assert (swap["swap total"] == 0) == (row[1] == "0B")


@pytest.mark.parametrize("number", ["9" * 19, "18446744073709551615"])
@pytest.mark.parametrize(
    ("name", "old"),
    [
        ("nmt/jdk17-nmt-summary.txt", "#8)"),
        ("jmap-histo/jdk17-histo-after.txt", "1500"),
        ("kernel-proc/rhcos4-slabinfo.txt", "2250"),
    ],
)
def test_counts_that_nothing_has_are_refused_or_left_out(tmp_path, name, old, number):
    text = (SAMPLES / name).read_text()
    assert old in text
    path = written(tmp_path, text.replace(old, old.replace(old.strip("#)"), number), 1))
    found = ()
    with contextlib.suppress(RecordingError):
        found = read_foreign(path)
    assert all(int(each.sites["live_count"].max()) < 1 << 62 for each in found)
    assert read_tables(path)


def test_a_change_that_nothing_has_is_refused(tmp_path):
    text = (SAMPLES / "nmt" / "jdk17-nmt-summary.txt").read_text()
    path = written(tmp_path, text.replace("#8)", "#99999999999999999999)", 1))
    with pytest.raises(RecordingError, match="larger than any memory"):
        read_foreign(path)


def test_address_space_and_resident_memory_are_no_course(tmp_path):
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        while read_status(sleeper.pid).state != "S":  # its libraries are still coming
            time.sleep(0.01)
        looks = []
        for number, options in enumerate((["-x"], [], ["-X"], ["-x", "-q"], [])):
            command = ["pmap", *options, str(sleeper.pid)]
            done = subprocess.run(command, capture_output=True, check=True)
            path = tmp_path / f"pmap{number}"
            path.write_bytes(done.stdout)
            looks += read_tables(path)
    finally:
        sleeper.kill()
        sleeper.wait()
    courses = judge_snapshots(looks).courses
    kinds = [{look.of for look in course.snapshots} for course in courses]
    assert kinds == [{"resident"}, {"of address space"}, {"resident"}]
    assert [len(course.snapshots) for course in courses] == [2, 2, 1]
    quiet = courses[0].snapshots[1]
    assert quiet.total == courses[0].snapshots[0].total


@pytest.mark.parametrize(
    ("option", "unit"),
    [("-b", 1), ("-k", 1 << 10), ("-m", 1 << 20), ("-g", 1 << 30), ("-h", 1), ("", 1 << 10)],
)
def test_free_says_the_same_in_every_unit(option, unit, tmp_path):
    """The unit that an option asks for is not in the output, but Linux counts in pages."""
    command = ["free", *([option] if option else [])]
    real = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (table,) = read_tables(written(tmp_path, real))
    memory = next(
        int(line.split()[1]) << 10
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("MemTotal:")
    )
    assert memory - max(unit, memory // 20) <= table.total <= memory + memory // 20
    assert any("rounded" in n if option == "-h" else "figures are" in n for n in table.notes)


@pytest.mark.parametrize(
    ("total", "others", "size", "said"),
    [
        (23, (3, 17, 0, 2, 19), 23 << 30, "GiB"),
        (24105, (1849, 18470, 37, 4133, 22255), 24105 << 20, "MiB"),
        (512, (101, 300, 3, 111, 411), 512 << 20, "cannot be told apart"),
        (4_194_305, (101, 300, 3, 111, 411), 4_194_305 << 20, "MiB"),
        (25_276_059, (3_001, 17, 3, 111, 411), 25_276_059 << 20, "MiB"),
        (252_760_591, (3_001, 17, 3, 111, 411), 252_760_591_000, "1000 bytes"),
        (60_004, (20_000, 20_004, 0, 20_000, 40_004), 60_004 << 10, "KiB"),
    ],
)
def test_the_unit_of_free_is_found_by_its_figures(total, others, size, said, tmp_path):
    head = "               total        used        free      shared  buff/cache   available\n"
    row = "Mem: " + " ".join(f"{n:11}" for n in (total, *others)) + "\n"
    swap = "Swap:           0           0           0\n"
    (table,) = read_tables(written(tmp_path, head + row + swap))
    assert table.total == size
    assert any(said in note for note in table.notes)


@pytest.mark.parametrize(("option", "unit"), [("K", 1 << 10), ("M", 1 << 20)])
def test_vmstat_says_the_same_in_every_unit(option, unit, tmp_path):
    command = ["vmstat", "-w", "-S", option]
    real = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (table,) = read_tables(written(tmp_path, real))
    free, told = (dict(_numbers(real))["free"] * unit, facts(table)["free"])
    assert told == free


def _numbers(text):
    _, names, values = text.splitlines()
    return zip(names.split(), map(int, values.split()), strict=False)


@pytest.mark.parametrize(("option", "unit"), [("K", 1 << 10), ("M", 1 << 20), ("k", 1000)])
def test_the_list_of_vmstat(option, unit, tmp_path):
    command = ["vmstat", "-s", "-S", option]
    real = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    first, second = read_tables(written(tmp_path, real + real))
    assert facts(first) == facts(second)
    told = dict(line.strip().split(f" {option} ")[::-1] for line in real.splitlines()[:10])
    assert facts(first) == {name: int(number) * unit for name, number in told.items()}
    assert first.total == int(told["total memory"]) * unit


def test_the_caches_that_vmstat_lists(tmp_path):
    real = subprocess.run(["vmstat", "-m"], capture_output=True, text=True, check=False)
    text = real.stdout
    if real.returncode:  # only root may read them: its form, then
        text = "Cache                       Num  Total   Size  Pages\nvm_area_struct  40  48  208  19\n"
    looks = read_tables(written(tmp_path, text + text))
    assert len(looks) == 2
    lines = [line.rsplit(maxsplit=4) for line in text.splitlines() if not line.startswith("Cache ")]
    assert looks[0].rows == looks[1].rows
    assert looks[0].total == sum(int(each[2]) * int(each[3]) for each in lines)
    assert len(looks[0].rows) == len({each[0].strip() for each in lines})
