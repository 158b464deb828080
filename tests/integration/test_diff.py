# SPDX-License-Identifier: Apache-2.0
"""`leakscope diff` on real programs: builds that differ in all but one place, runs, tools."""

import json
import subprocess
import sys

import pytest

from foreign import SAMPLES
from integration.test_schemas import schema_of

C = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
struct node { struct node *next; char name[40]; };
static struct node *kept;
static void *checked(size_t size)
{
    void *block = malloc(size);
    if (!block)
        exit(9);
    return memset(block, 1, size);
}
static void *record(size_t size) { return checked(size + 1); }
__attribute__((noinline)) static void lose(int n) { *(char *volatile *)&(char *){0} = record(n); }
__attribute__((noinline)) static void *through(size_t size) { return checked(size); }
__attribute__((noinline)) static void lose_path(const char *path)
{
    char *volatile copy = strdup(path);
    copy[0] = 1;
    copy = 0;
}
__attribute__((noinline)) static void keep(int count)
{
    for (int i = 0; i < count; i++) {
        struct node *node = calloc(1, sizeof *node);
        node->next = kept;
        kept = node;
    }
}
__attribute__((noinline)) static void recurse(int depth)
{
    if (depth)
        recurse(depth - 1);
    else
        lose(33);
}
#if PLANT == 1
__attribute__((noinline)) static void planted(void)
{
    char *volatile block = checked(500);
    block[0] = 1;
    block = 0;
}
#endif
int main(int count, char **words)
{
    for (int i = 0; i < 40; i++) {
        lose(100);
        recurse(3);
        char *volatile block = through(70);
        block = 0;
    }
    lose_path(words[0]);
    keep(200 + 80 * (PLANT == 2));
#if PLANT == 1
    for (int i = 0; i < 12; i++)
        planted();
#elif PLANT == 3
    for (int i = 0; i < 5; i++)
        lose(100);
#endif
    return count == 77;
}
"""
CXX = r"""
#include <map>
#include <memory>
#include <string>
#include <vector>
namespace shop {
struct Item { std::string name; std::vector<int> parts; };
template <class T> class Store {
public:
    void add(const std::string &key, T value) { items_[key] = std::move(value); }
    T *make(const std::string &key) { return new T{key, std::vector<int>(30)}; }
private:
    std::map<std::string, T> items_;
};
static Store<Item> *store = new Store<Item>;
static void work(int n)
{
    store->add("an item with a long name " + std::to_string(n), Item{"x", {1, 2, 3}});
    Item *volatile lost = store->make("another item with a long name");
    lost = nullptr;
}
#if PLANT == 1
static void planted(int n)
{
    auto *volatile lost = new std::vector<double>(n);
    lost = nullptr;
}
#endif
}
int main()
{
    for (int n = 0; n < 50; n++)
        shop::work(n);
#if PLANT == 1
    for (int n = 0; n < 8; n++)
        shop::planted(100);
#endif
}
"""


def leakscope(*arguments, status=None):
    done = subprocess.run(
        [sys.executable, "-m", "leakscope", *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    if status is not None:
        assert done.returncode == status, done.stdout + done.stderr
    return done


def built(folder, text, *options, plant=0, strip=False):
    compiler, name = ("g++", "program.cc") if "namespace" in text else ("gcc", "program.c")
    folder.mkdir(parents=True)
    (folder / name).write_text(text)
    command = [compiler, f"-DPLANT={plant}", *options, folder / name, "-o", folder / "program"]
    subprocess.run([*command, *(["-s"] if strip else [])], check=True, timeout=60)
    return folder / "program"


def recorded(program, *options):
    out = program.with_suffix(".leakscope")
    leakscope("run", "-q", "--no-report", *options, "-o", out, "--", program, status=0)
    return out


def differences(before, after, *options, status=None):
    done = leakscope("diff", "--json", "--no-debuginfod", *options, before, after, status=status)
    document = json.loads(done.stdout)
    return document, {
        (row["change"], row["source"]["function"]): (row["count_before"], row["count_after"])
        for row in document["changes"]
    }


@pytest.fixture(scope="module")
def plain(tmp_path_factory, agent):
    """Recordings without anything planted, by language."""
    folder = tmp_path_factory.mktemp("plain")
    return {
        text: recorded(built(folder / name, text, "-g", "-O0"))
        for name, text in (("c", C), ("cc", CXX))
    }


FRAMES = ("-fno-omit-frame-pointer", "-fno-optimize-sibling-calls")
MOVED = "\n\n// lines that move all others\n\nstatic int unused __attribute__((unused));\n"


@pytest.mark.parametrize("level", ["-O0", "-O2"])
@pytest.mark.parametrize(
    ("text", "plant", "change"),
    [
        (C, 1, {("new", "planted"): (0, 12)}),
        (C, 2, {("grown", "keep"): (200, 280)}),
        (C, 3, {("grown", "record"): (40, 45)}),
        (CXX, 1, {("new", "shop::planted(int)"): (0, 8)}),
    ],
    ids=["new", "kept", "grown", "c++"],
)
def test_exactly_the_planted_change_is_named(text, plant, change, level, plain, tmp_path):
    after = built(tmp_path / "of/another" / level, MOVED + text, "-g", level, plant=plant)

    document, found = differences(plain[text], recorded(after), status=1 if change else 0)

    def short(names):
        return {(how, name.split("::")[-1].split("(")[0]): n for (how, name), n in names.items()}

    assert short(found).keys() == short(change).keys()
    if text == C and plant < 3:  # of what grew, an optimised build has several stacks in one
        assert short(found) == short(change)
    assert document["status"] == bool(change)


@pytest.mark.parametrize("options", [["-g", "-O3"], ["-g", "-Os"], ["-O2"]])
def test_a_build_in_which_nothing_changed_but_the_compiler(options, plain, tmp_path):
    """The last one has no debug information: it is compared by names."""
    after = recorded(built(tmp_path / "other", MOVED + C, *options))

    assert differences(plain[C], after, status=0)[1] == {}


def test_a_build_without_any_names_says_so(plain, tmp_path):
    after = recorded(built(tmp_path / "stripped", C, "-O0", strip=True))

    document, _ = differences(plain[C], after)

    assert any("without a name" in text for text in document["after"]["cannot_tell"])


def test_a_leak_that_was_mended_is_gone_and_no_failure(plain, tmp_path):
    before = recorded(built(tmp_path / "old", C, "-g", "-O1", plant=1))

    document, found = differences(before, plain[C], status=0)
    assert found == {("gone", "planted"): (12, 0)}
    jsonschema_check(document)
    text = leakscope("diff", before, plain[C], status=0).stdout
    assert text.startswith("leakscope: nothing new or grown, 1 gone stack")
    leakscope("diff", before, plain[C], "--fail-on", "gone", "--exit-code", "9", status=9)
    leakscope("diff", plain[C], before, "--fail-on", "gone", status=0)
    leakscope("diff", plain[C], before, "--fail-on", "lost", status=1)


def jsonschema_check(document):
    import jsonschema

    jsonschema.validate(document, schema_of(document))


def test_another_tool_on_one_side(plain, tmp_path):
    """Memcheck on the build that has the leak, leakscope on the one that has not."""
    program = built(tmp_path / "new", C, "-g", "-O1", plant=1)
    xml = tmp_path / "memcheck.xml"
    subprocess.run(
        ["valgrind", "-q", "--leak-check=full", "--show-leak-kinds=all", "--xml=yes",
         f"--xml-file={xml}", program],
        check=True, capture_output=True, timeout=100,
    )  # fmt: skip

    document, found = differences(plain[C], xml, status=1)

    assert found == {("new", "checked"): (0, 12)}
    assert [frame["function"] for frame in document["changes"][0]["stack"]][1] == "planted"
    assert document["measure"] == "lost and held"


def test_a_checker_that_lists_only_what_is_lost_is_compared_by_that(plain, tmp_path):
    program = built(tmp_path / "asan", C, "-g", "-O1", "-fsanitize=address", *FRAMES, plant=1)
    done = subprocess.run([program], capture_output=True, text=True, check=False, timeout=60)
    report = tmp_path / "lsan.txt"
    report.write_text(done.stderr)

    document, found = differences(plain[C], report, status=1)

    assert (document["measure"], set(found)) == ("lost", {("new", "checked")})
    assert any("what is lost, and not" in text for text in document["after"]["cannot_tell"])


def test_several_recordings_on_a_side(plain, tmp_path):
    folder = tmp_path / "two"
    folder.mkdir()
    for name in "ab":
        (folder / f"{name}.leakscope").write_bytes(plain[C].read_bytes())

    _, found = differences(plain[C], folder, status=1)
    assert {how for how, _ in found} == {"grown"}
    twice = ["--before", plain[C], "--before", plain[C], "--after", folder]
    assert "nothing new" in leakscope("diff", *twice, status=0).stdout


def test_sampled_runs_of_one_program_do_not_differ(tmp_path, agent):
    text = r"""
    #include <stdlib.h>
    #include <string.h>
    char *volatile kept[20000];
    int main(void) {
      for (int i = 0; i < 20000; i++) kept[i] = memset(malloc(64 + i % 7 * 100), 1, 60);
      for (int i = 0; i < MORE; i++) kept[i] = memset(malloc(2000), 1, 60);
      return 0;
    }"""
    few, again, third, fourth, many = (
        recorded(built(tmp_path / name, text, "-g", f"-DMORE={more}"), "--sample", "16KiB")
        for name, more in (("few", 0), ("again", 0), ("third", 0), ("fourth", 0), ("many", 9000))
    )

    # Chance alone makes a change of one pair in a hundred: hardly of two that share no recording.
    pairs = [differences(few, again), differences(third, fourth)]
    assert {} in [found for _, found in pairs]
    assert all(document["before"]["sampled"] for document, _ in pairs)
    document, found = differences(few, many, status=1)
    assert found
    assert all(row["p_value"] < 0.01 for row in document["changes"])


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["a"], "two sides are compared"),
        (["a", "b", "c"], "two sides are compared"),
        (["--before", "a"], "go together"),
        (["missing", "missing"], "neither a process nor a file"),
        (["rubbish", "rubbish"], "is not"),
        (["rubbish", "rubbish", "--fail-on", "x"], "'x' is none of"),
        (["rubbish", "rubbish", "--tolerance", "-3"], "no percentage"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(arguments, why, tmp_path):
    (tmp_path / "rubbish").write_bytes(b"\0\1\2 no recording" * 99)
    done = subprocess.run(
        [sys.executable, "-m", "leakscope", "diff", *arguments],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip

    assert done.returncode == 2
    assert why in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_lost_is_not_compared_with_what_is_held():
    before = SAMPLES / "lsan" / "gcc12-lsan-symbolized.txt"
    after = SAMPLES / "heaptrack" / "heaptrack.leaky.v3.gz"
    done = leakscope("diff", before, after, status=3)
    assert "nothing can be compared: no number is known of both sides" in done.stdout
    assert "Compared:" not in done.stdout
