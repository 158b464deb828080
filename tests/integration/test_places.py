# SPDX-License-Identifier: Apache-2.0
"""Which line is blamed: the caller of a helper, never a library's header, and who calls it."""

import subprocess
from collections import Counter
from pathlib import Path

import pytest

from integration.conftest import describe

FOLDER = Path(__file__).parents[1] / "programs/places"
LEVELS = ["-O0", "-O2"]


def build(folder, compiler, sources, *options):
    program = folder / "program"
    subprocess.run(
        [compiler, *options, "-o", program, *(FOLDER / name for name in sources)], check=True
    )
    return program


def blamed(traced):
    """Blocks by the function that is blamed, and the helper that it called."""
    found = Counter()
    for leak in traced.leaks:
        through = leak["through"][-1]["function"] if leak["through"] else None
        found[_short(leak["source"]["function"]), _short(through)] += leak["lost_count"]
    return found


def _short(name):
    return name and name.split("(")[0].split("<")[0].split(" ")[-1].split("::")[-1]


@pytest.mark.parametrize("level", LEVELS)
def test_helpers_in_c(trace, tmp_path, level):
    traced = trace([build(tmp_path, "gcc", ["helpers.c", "helpers_util.c"], "-g", level)])

    assert blamed(traced) == {
        ("load_users", "grab"): 30,
        ("load_orders", "grab"): 30,
        ("cold", "outer"): 30,  # that warm() also came through it tells, though it freed all
        ("make_node", None): 60,  # makes one kind of thing: the report lists its callers
        ("only_once", None): 30,
        ("leak_here", None): 45,  # returns nothing
    }, describe(traced)
    assert traced.program["leak_place_count"] == 6
    assert traced.program["headline"].startswith("6 places leak ")


@pytest.mark.parametrize("level", LEVELS)
def test_helpers_in_cxx(trace, tmp_path, level):
    traced = trace([build(tmp_path, "g++", ["helpers.cc"], "-g", level, "-fno-ipa-icf")])

    found = blamed(traced)
    assert {function for function, _ in found} == (
        {"foos", "bars", "unique", "pool_one", "pool_two", "numbers", "text", "mapped"}
    ), describe(traced)
    assert found["foos", "create"] == found["bars", "create"] == 30, describe(traced)
    files = {Path(leak["source"]["file"]).name for leak in traced.leaks}
    assert files == {"helpers.cc"}, describe(traced)


@pytest.mark.parametrize("level", ["-Copt-level=0", "-O"])
def test_helpers_in_rust(trace, tmp_path, level):
    traced = trace([build(tmp_path, "rustc", ["helpers.rs"], "-g", level)])

    found = {(_short(leak["source"]["function"]), leak["place"]) for leak in traced.leaks}
    functions = {function for function, _ in found}
    assert functions == {"one", "two", "boxed", "vector", "mapped"}, describe(traced)
    assert all(Path(place.rpartition(":")[0]).name == "helpers.rs" for _, place in found)


def test_without_lines_places_are_functions(trace, tmp_path):
    options = ["-O0", "-Wl,--build-id"]
    program = build(tmp_path, "gcc", ["helpers.c", "helpers_util.c"], *options)
    named = trace([program])
    subprocess.run(["strip", program], check=True)
    stripped = trace([program])

    # grab, inner, make_node, only_once, leak_here
    assert named.program["leak_place_count"] == 5, describe(named)
    assert stripped.program["leak_place_count"] == 5, describe(stripped)
    assert len(stripped.leaks) == 8, describe(stripped)
    assert stripped.program["headline"].startswith("5 places leak ")


def test_debug_information_without_a_symbol_table(trace, tmp_path):
    program = build(tmp_path, "gcc", ["helpers.c", "helpers_util.c"], "-g", "-O0")
    keep = ["--strip-all", "--keep-section=.debug_*"]
    subprocess.run(["objcopy", *keep, program], check=True)

    traced = trace([program])

    assert ("load_users", "grab") in blamed(traced), describe(traced)


def test_a_library_without_debug_information(trace, tmp_path):
    library = tmp_path / "libthing.so"
    subprocess.run(["gcc", "-fPIC", "-shared", "-o", library, FOLDER / "library.c"], check=True)
    traced = trace([build(tmp_path, "gcc", ["library_user.c", library], "-g")])

    assert blamed(traced) == {("user", "thing_new"): 60}, describe(traced)
    (note,) = [n for n in traced.program["notes"] if "libthing" in n]
    assert note == "functions but no lines for libthing.so: compile it with -g"
