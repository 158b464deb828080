# SPDX-License-Identifier: Apache-2.0
"""Every real file of every tool is taken for what it is, or for nothing that is known here."""

from foreign import SAMPLES
from leakscope.formats import foreign_format

NAMES = {
    "valgrind-xml": "valgrind's XML",
    "lsan": "a report of LeakSanitizer",
    "valgrind-text": "a log of valgrind",
    "mtrace": "a log of mtrace",
    "bcc-memleak": "output of memleak (bcc)",
    "kmemleak": "a list of kmemleak",
    "dmalloc": "a log of dmalloc",
    "leaktracer": "a report of LeakTracer",
    "memleax": "output of memleax or libleak",
    "libleak": "output of memleax or libleak",
}


def test_each_file_is_taken_for_what_it_is():
    read_here = set(NAMES)
    wrong = {}
    for path in sorted(SAMPLES.glob("*/*")):
        if path.is_dir():
            continue
        name, folder = foreign_format(path), path.parent.name
        expected = NAMES.get(folder)
        stolen = folder not in read_here and name in NAMES.values()
        if stolen or (folder in read_here and name != expected):
            wrong[f"{folder}/{path.name}"] = name
    assert wrong == {}
