# SPDX-License-Identifier: Apache-2.0
"""Which function of the kernel an address is in."""

from hypothesis import given
from hypothesis import strategies as st

from leakscope.proc.kallsyms import parse_kallsyms, read_kallsyms

TEXT = """\
ffffffff81000000 T _text
ffffffff81000100 t helper
ffffffff81000100 T its_alias
ffffffff81000200 D data
ffffffff81000300 W weak
ffffffffc0000000 t leaks_run\t[leaks]
ffffffffc0000000 t rubbish [leaks] more
nonsense
"""


def test_functions_are_found_by_address():
    found = parse_kallsyms(TEXT.splitlines())
    assert found.find(0xFFFFFFFF81000110) == ("helper", None, 0x10, 0x200)
    assert found.find(0xFFFFFFFF81000250) == ("helper", None, 0x150, 0x200)  # data is no function
    assert found.find(0xFFFFFFFFC0000005) == ("leaks_run", "leaks", 5, None)


def test_a_return_address_belongs_to_the_call_before_it():
    found = parse_kallsyms(TEXT.splitlines())
    assert found.find(0xFFFFFFFF81000300).name == "helper"
    assert found.find(0xFFFFFFFF81000300, exact=True).name == "weak"


def test_what_is_far_from_all_functions_is_in_none():
    found = parse_kallsyms(TEXT.splitlines())
    assert found.find(0x1000) is None
    assert found.find(0xFFFFFFFFC0900000) is None


def test_hidden_addresses_are_no_symbols(tmp_path):
    assert len(parse_kallsyms(["0000000000000000 T kfree"])) == 0
    assert len(read_kallsyms(str(tmp_path / "missing"))) == 0


@given(st.text(max_size=200))
def test_no_text_does_harm(text):
    parse_kallsyms(text.splitlines())
