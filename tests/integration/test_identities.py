# SPDX-License-Identifier: Apache-2.0
"""The stable identity of a leak survives what a rebuild changes; the exact one does not."""

import json
import subprocess
import sys

import pytest

C = r"""
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
struct item { struct item *next; char *text; };
static struct item *volatile sink;
static struct item *make_item(const char *text)
{
    struct item *item = calloc(1, sizeof *item);
    item->text = strdup(text);
    return item;
}
static int walk(int depth, const char *text)
{
    if (depth > 0)
        return walk(depth - 1, text) + 1;
    sink = make_item(text);
    int first = sink->text[0];
    sink = 0;
    return first;
}
__attribute__((noinline)) int handle(int depth)
{
    int sum = walk(depth, "abc");
    sink = memset(malloc(77), 0, 77);
    sink = 0;
    return sum;
}
int main(int count, char **words)
{
    int sum = 0;
    for (int i = 0; i < 20; i++)
        sum += handle(count + 2);
    return sum == 7;
}
"""
CXX = r"""
#include <cstring>
#include <string>
#include <vector>
namespace shop {
template <class T> class Cart {
public:
    void add(const T &what) { lost_ = new T(what); }
    T *lost_ = nullptr;
};
static int fill(Cart<std::string> &cart, int n)
{
    cart.add(std::string(100 + n, 'x'));
    return n;
}
}
int main()
{
    int sum = 0;
    for (int i = 0; i < 20; i++) {
        shop::Cart<std::string> cart;
        sum += shop::fill(cart, i);
    }
    return sum == 7;
}
"""


def identities(folder, text, compiler, level):
    """{line in the source: (exact, stable)} of what leaks, by the text of the line."""
    folder.mkdir(parents=True)
    source = folder / f"program.{'c' if compiler == 'gcc' else 'cc'}"
    source.write_text(text)
    subprocess.run([compiler, "-g", level, source, "-o", folder / "program"], check=True)
    out = folder / "report.json"
    leakscope = [sys.executable, "-m", "leakscope", "run", "--json", "--no-debuginfod"]
    kept = ["--report-file", out, "-o", folder / "r.leakscope"]
    subprocess.run([*leakscope, *kept, folder / "program"], check=False, timeout=60)
    lines = text.splitlines()
    (process,) = json.loads(out.read_text())["processes"]
    leaks = [f for f in process["findings"] if f["is_leak"]]
    return {
        lines[f["source"]["line"] - 1].strip(): (
            f["fingerprint"],
            f["stable_fingerprint"],
        )
        for f in leaks
    }


def with_a_line(text):
    """The program with a line of code above everything that leaks."""
    head, _, rest = text.partition("struct item {" if "struct item {" in text else "namespace")
    word = "struct item {" if "struct item {" in text else "namespace"
    return f"{head}static int unused __attribute__((unused)) = 3;\n{word}{rest}"


@pytest.mark.parametrize(
    ("text", "compiler", "functions"), [(C, "gcc", 2), (CXX, "g++", 1)], ids=["c", "c++"]
)
def test_a_rebuild_leaves_the_stable_identity(text, compiler, functions, tmp_path):
    first = identities(tmp_path / "a", text, compiler, "-O0")
    stable = {place: both[1] for place, both in first.items()}
    assert len(set(stable.values())) == functions  # one in each function that allocates
    for folder, changed, level in (
        ("b/of/another/depth", with_a_line(text), "-O0"),
        ("c", text, "-O2"),
    ):
        again = identities(tmp_path / folder, changed, compiler, level)
        assert {place: both[1] for place, both in again.items()} == stable, level
        assert not {both[0] for both in again.values()} & {both[0] for both in first.values()}
