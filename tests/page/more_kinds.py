# SPDX-License-Identifier: Apache-2.0
"""What commands find on Java, kernels, devices and saved tables, as values in which nothing is empty."""

from dataclasses import fields, is_dataclass, replace
from enum import Enum

import numpy as np

from leakscope.judge.trends import judge_series
from leakscope.model.findings import Evidence, Verdict
from leakscope.model.frames import FrameName
from leakscope.model.heapdump import (
    ClassRow,
    DumpGrowth,
    GrownPart,
    HeapAnswer,
    HeapOddity,
    HeapPlace,
    HeldClass,
    JavaPattern,
    PathStep,
    Suspect,
    ThreadFacts,
)
from leakscope.model.java_machines import (
    ClassCourse,
    GrowthOf,
    MachineFacts,
    MachineSeen,
    MachineWatched,
)
from leakscope.model.kernel_state import KernelHolder, KernelSource, KernelState
from leakscope.model.series import Series, Subject
from leakscope.model.snapshots import Course, GrownRow, Row, Snapshot, Snapshots
from leakscope.model.triage import Oddity
from leakscope.report.answers.devices import of_app
from leakscope.report.answers.java_heaps import of_dump, of_growth
from leakscope.report.answers.kernels import of_kernel
from leakscope.report.answers.tables import of_snapshots
from leakscope.report.answers.virtual_machines import of_machine, of_machines

SECOND = 10**9
KEPT = {"unit", "state", "kind", "metric"}  # ours alone, or what chooses a text of ours


def poisoned(value, evil, name=""):
    """The same with `evil` in every text but in ours."""
    if isinstance(value, Enum) or name in KEPT:
        return value
    if isinstance(value, str):
        return evil + value
    if isinstance(value, tuple | list):
        return type(value)(poisoned(each, evil, name) for each in value)
    if is_dataclass(value):
        return replace(
            value, **{f.name: poisoned(getattr(value, f.name), evil, f.name) for f in fields(value)}
        )
    return value


def trends(*metrics, kind="java", hours=2):
    """Verdicts on gauges that leak."""
    times = np.arange(0, hours * 3600, 10, dtype=np.int64) * SECOND
    noise = np.random.default_rng(1).normal(0, 20_000, len(times))
    subject = Subject(kind, "7@1", "shop", 7, "/bin/shop", 0, 4e9, "the largest heap")
    values = 5e8 + noise + times / SECOND * 1e5
    return judge_series([Series(subject, name, "bytes", times, values) for name in metrics])


def place() -> HeapPlace:
    path = (
        PathStep("class loaded", "Shop", 16, is_class=True, retained=900),
        PathStep("static SESSIONS", "java.util.HashMap", 32, is_class=False, retained=800),
        PathStep("table", "java.util.HashMap$Node[]", 48, is_class=False, retained=700),
    )
    held = (HeldClass("Shop$Session", 5, 400),)
    return HeapPlace("java.util.HashMap$Node[]", 48, 700, 5, held, path, ("Shop", "SESSIONS"))


def dump() -> HeapAnswer:
    frame = FrameName("Shop.serve", "Shop.java", 12, interpreter="java")
    thread = ThreadFacts("worker-1", (frame, FrameName("Shop.main", "Shop.java", 3)), frame)
    suspect = Suspect(
        "java.util.HashMap",
        1,
        800,
        0.8,
        place(),
        thread,
        JavaPattern.STATIC_COLLECTION,
        "Shop.SESSIONS keeps 800 B (80 % of the heap)",
        "remove sessions that ended",
    )
    oddity = HeapOddity(
        JavaPattern.DIRECT, 3, 3000, "3 direct buffers", "release them", "buffers", off_heap=True
    )
    return HeapAnswer(
        name="shop.hprof",
        version="1.0.2",
        android=True,
        id_size=8,
        taken_ms=1_700_000_000_000,
        objects=20,
        class_count=4,
        roots=3,
        strong_bytes=1000,
        levels=(("softly held", 2, 100),),
        classes=(ClassRow("Shop$Session", 5, 400), ClassRow("byte[]", 9, 300)),
        class_total=4,
        suspects=(suspect,),
        oddities=(oddity,),
        places=(place(),),
        notes=("it is cut",),
        seconds=0.5,
        memory=10_000,
        heaps=(("app", 9, 900),),
    )


def growth() -> DumpGrowth:
    evidence = (
        Evidence("rises", 1.0, "rose in every stretch", True),
        Evidence("few", 0.0, "few", False),
    )
    parts = tuple(
        GrownPart(
            subject,
            name,
            (1, 2, 3),
            (100, 200, 300),
            Verdict.LEAKING,
            0.9,
            10.0,
            "grew from 100 B to 300 B",
            evidence,
            place(),
            JavaPattern.STATIC_COLLECTION,
        )
        for subject, name in (("place", "Shop.SESSIONS"), ("class", "Shop$Session"))
    )
    dumps = (dump(), dump(), dump())
    return DumpGrowth(dumps, (0.0, 60.0, 120.0), Verdict.LEAKING, parts, 7, ("a note",))


def machine() -> MachineSeen:
    facts = MachineFacts(
        7,
        "me",
        "shop.Main --port 80",
        "17",
        10,
        20,
        None,
        None,
        0.1,
        5,
        6,
        7,
        8,
        "hidden",
        "pauses",
    )
    return MachineSeen(facts, tuple(trends("heap_after_gc", "memory", "outside_heap")))


def watched() -> MachineWatched:
    course = ClassCourse(
        "Shop$Session",
        (1, 2, 3),
        (100, 200, 300),
        Verdict.GROWING,
        0.6,
        10.0,
        "grew from 100 B to 300 B",
        (Evidence("rises", 1.0, "rose", True),),
    )
    return MachineWatched(
        machine(),
        60.0,
        (course,),
        (("live in the heap", 100.0, 300.0, "bytes"),),
        GrowthOf.HEAP,
        Verdict.GROWING,
        "the Java heap grows",
        "to see who holds it: leakscope java dump 7 -o 7.hprof",
        3,
        20.0,
        ("not tracked",),
    )


def kernel() -> KernelState:
    return KernelState(
        release="6.12",
        verdict="the kernel holds 107 MiB for itself",
        total=1 << 30,
        kernel=107 << 20,
        reclaimable=50 << 20,
        unexplained=1 << 20,
        sources=(
            KernelSource("allocinfo", "source lines", "works"),
            KernelSource("kmemleak", "lost objects", "off", "it was built without", "rebuild"),
        ),
        holders=(
            KernelHolder("line", "fs/dcache.c:12 func:d_alloc", 5 << 20, 9, 1e6, "given back"),
            KernelHolder("cache", "dentry", 4 << 20, 8),
        ),
        oddities=(Oddity("dentry grows by 1 MiB/s", "leakscope kernel watch"),),
        suspects=1,
        next_step="leakscope kernel scan",
        apart_s=1.5,
        notes=("a note",),
    )


def snapshots() -> Snapshots:
    subject = Subject("process", "7", "shop", 7)
    rows = (Row("[heap]", 900, 3), Row("/lib/libc.so", 100, 2))
    looks = tuple(
        Snapshot("/proc/7/smaps", subject, rows, (), n * 60 * SECOND, 1000, 5, notes=("short",))
        for n in range(2)
    )
    found = tuple(trends("anon", kind="process"))
    grown = (GrownRow("[heap]", 100, 900, 1, 3, 1), GrownRow("[stack]", 300, 200, 1, 1, 0, 1))
    return Snapshots((Course("smaps", looks, grown, found),), found, ("a note",))


def app(evil=""):
    seen = trends("Java Heap", "Native Heap", "TOTAL", kind="android")
    return of_app(f"{evil}com.example", 720, poisoned(seen, evil), f"{evil}device gone")


MADE = {
    "java dump": lambda evil="": of_dump(poisoned(dump(), evil)),
    "java dumps": lambda evil="": of_growth(poisoned(growth(), evil)),
    "java": lambda evil="": of_machines([poisoned(machine(), evil)]),
    "java watch": lambda evil="": of_machine(poisoned(watched(), evil)),
    "kernel": lambda evil="": of_kernel(poisoned(kernel(), evil)),
    "android watch": app,
    "tables": lambda evil="": of_snapshots(poisoned(snapshots(), evil)),
}
