# SPDX-License-Identifier: Apache-2.0
"""What only the kernel's memory says: which objects fill a cache, and who refers to one."""

import pytest

from lab_boot import boot

pytestmark = pytest.mark.timeout(2400)

# One lost object, found by its address; the cache itself, which the module and SLUB know.
SCRIPT = r"""
O="$L kernel objects --vmlinux {kernel}/vmlinux --debug-dir {kernel}/leaks"
insmod {kernel}/leaks/leaks.ko
(echo once >/proc/leaks)
$O leaks_object >/run/cache
section cache cat /run/cache
section lost $O $(grep -o '0xffff[0-9a-f]*' /run/cache | head -n1)
$O kmem_cache >/run/caches
section caches cat /run/caches
section known $O $(grep -o '0xffff[0-9a-f]*' /run/caches | head -n1)
section nothing $O no_such_cache
section stray $O 0xffffffff81000000
section types $L kernel objects leaks_object
section dump $L kernel objects leaks_object --vmcore /etc/passwd
"""


@pytest.fixture(scope="module")
def said(lab_kernel, tmp_path_factory):
    return boot(
        SCRIPT.format(kernel=lab_kernel),
        tmp_path_factory.mktemp("lab"),
        kernel=lab_kernel / "arch/x86/boot/bzImage",
        append="slub_debug=U kmemleak=on",
    )


def test_what_fills_a_cache_is_told_by_what_it_points_to(said):
    assert "leaks_object holds 1 object of 328 B" in said["cache"].text
    assert "nothing that has a name" in said["cache"].text
    assert "kernel objects --vmlinux" in said["cache"].text
    # Each cache has a kobject, whose type is a table of the kernel's.
    assert "slab_ktype" in said["caches"].text


def test_nobody_refers_to_an_object_that_was_lost(said):
    assert said["lost"].status == 1
    assert "nothing refers to the object of leaks_object at 0xffff" in said["lost"].text
    assert "in notes of kmemleak" in said["lost"].text  # which are met, and do not count


def test_who_refers_to_an_object_in_use_is_named(said):
    assert said["known"].status == 0
    assert "refer to the object of kmem_cache at 0xffff" in said["known"].text
    assert "an object of kmem_cache" in said["known"].text  # the list of caches


def test_what_cannot_be_looked_at_is_refused_in_a_sentence(said):
    assert "no slab cache named 'no_such_cache'" in said["nothing"].text
    assert "no object of a slab cache at 0xffffffff81000000" in said["stray"].text
    assert "without types the kernel's memory tells nothing" in said["types"].text
    assert "/etc/passwd cannot be read as the memory of a kernel" in said["dump"].text
    for name in ("nothing", "stray", "types", "dump"):
        assert said[name].status == 2
        assert "Traceback" not in said[name].text
