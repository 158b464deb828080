# SPDX-License-Identifier: Apache-2.0
"""What the kernel writes about tmpfs, shared memory, vmalloc, sockets and the page allocator."""

import os
import socket
from pathlib import Path

import pytest

from leakscope.proc import cgroup, slabinfo, smaps, sockets, sysv, tmpfs, vm, vmalloc
from leakscope.proc.text import read_lines, read_text

MOUNTS = """\
22 1 254:0 / / rw shared:1 - ext4 /dev/root rw
25 22 0:23 / /dev/shm rw,nosuid shared:4 - tmpfs tmpfs rw
26 22 0:24 / /mnt/with\\040space rw - tmpfs tmpfs rw,size=1k
27 22 0:23 /a /run/very/long/bind rw - tmpfs tmpfs rw
broken line
"""


def test_each_tmpfs_once_by_its_shortest_path():
    assert tmpfs.parse_mounts(MOUNTS) == {"0:23": "/dev/shm", "0:24": "/mnt/with space"}


def test_a_file_in_tmpfs_is_memory():
    mounts = [t.mount for t in tmpfs.read_tmpfs() if os.access(t.mount, os.W_OK)]
    if not mounts:
        pytest.skip("no tmpfs is mounted here that may be written to")
    mount = "/dev/shm" if "/dev/shm" in mounts else mounts[0]
    path = f"{mount}/leakscope-test-{os.getpid()}"

    def used():
        return next(t.used for t in tmpfs.read_tmpfs() if t.mount == mount)

    before = used()
    with open(path, "wb") as file:
        file.write(b"x" * (8 << 20))
    during = used()
    os.unlink(path)
    # Other tests use shared memory at the same time, a little.
    assert during - before == pytest.approx(8 << 20, abs=4 << 20)


SEGMENTS = """\
       key      shmid perms                  size  cpid  lpid nattch   uid   gid  rss  swap
         0          3  1600               1048576   812   812      0     0     0  524288     0
         0          x  1600               1048576   812   812      0     0     0  524288     0
"""


def test_segments_and_what_they_hold():
    assert sysv.parse_segments(SEGMENTS) == (sysv.SharedSegment(3, 1 << 20, 1 << 19, 0, 812),)
    assert sysv.parse_segments("") == ()


VMALLOC = """\
0x0000000000001000-0x0000000000006000   20480 kernel_clone+0x94/0x3e0 pages=4 vmalloc N0=4
0x0000000000011000-0x0000000000016000   20480 kernel_clone+0x94/0x3e0 pages=4 vmalloc N0=4
0x0000000000021000-0x0000000000024000   12288 acpi_os_map_iomem+0x1bc/0x1e0 phys=0x9f000 ioremap
0x0000000000031000-0x0000000000034000   12288 drv_open+0x1/0x2 [drv] pages=1024 vmalloc vpages
bad
"""


def test_vmalloc_by_caller_without_device_memory():
    assert vmalloc.parse_vmallocinfo(VMALLOC) == (
        vmalloc.Buffers("drv_open", 1, 1024 * 4096, "drv"),
        vmalloc.Buffers("kernel_clone", 2, 8 * 4096),
    )
    assert [b.name for b in vmalloc.parse_vmallocinfo(VMALLOC)] == [
        "drv_open [drv]",
        "kernel_clone",
    ]


@pytest.mark.parametrize("pages", ["9" * 5000, "\u0663", "-1", ""])
def test_a_number_of_pages_that_cannot_be_is_left_out(pages):
    assert vmalloc.parse_vmallocinfo(f"0xa-0xb 8192 f+0x1/0x2 pages={pages} vmalloc\n") == ()


def test_fragmentation_is_the_share_that_cannot_serve_a_large_block():
    text = "Node 0, zone      DMA      1      0      2\nNode 0, zone   Normal      3      4      0\nx\n"
    blocks = vm.parse_buddyinfo(text)
    assert blocks == (4, 4, 2)
    assert vm.fragmentation(blocks, order=2) == pytest.approx(12 / 20)
    assert vm.fragmentation((), order=2) is None


def test_pages_kept_for_single_cpus():
    text = (
        "Node 0, zone   Normal\n  pages free     100\n  pagesets\n    cpu: 0\n"
        "              count:    12\n              high:     99\n    cpu: 1\n"
        "              count:    30\n  start_pfn:           1\nNode 0, zone  Movable\n"
        "              count:    7\n"
    )
    assert vm.parse_per_cpu_pages(text) == 42
    assert vm.read_per_cpu_pages() >= 0


def test_pressure_and_numbers():
    text = "some avg10=1.50 avg60=0.20 avg300=0.00 total=77\nfull avg10=x\n\n"
    assert vm.parse_pressure(text)["some avg10"] == 1.5
    assert "full avg10" not in vm.parse_pressure(text)
    assert vm.parse_numbers("oom_kill 3\nbad\nworse x\n") == {"oom_kill": 3}
    assert vm.read_vmstat()["pgfault"] > 0


def test_socket_totals():
    text = "sockets: used 9\nTCP: inuse 1 orphan 0 tw 0 alloc 1 mem 119\nUDP: inuse 0 mem 2\n"
    assert sockets.parse_sockstat(text) == sockets.SocketTotals(9, 121)


def test_peers_of_real_sockets():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
        six = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        six.bind(("::1", 0))
        unix = socket.socket(socket.AF_UNIX)
        unix.bind(f"\0leakscope-{os.getpid()}")

        def inode(one):
            return int(os.readlink(f"/proc/self/fd/{one.fileno()}")[8:-1])

        peers = sockets.read_peers(os.getpid())
        own = client.getsockname()[1]
        assert peers[inode(server)] == f"tcp listening on 127.0.0.1:{port}"
        assert peers[inode(client)] == f"tcp to 127.0.0.1:{port}, established"
        assert peers[inode(six)] == f"udp on [::1]:{six.getsockname()[1]}"
        assert peers[inode(unix)] == f"unix @leakscope-{os.getpid()}"
        client.close()
        assert sockets.read_peers(os.getpid())[inode(accepted)].endswith(f":{own}, close-wait")
        for one in (accepted, six, unix):
            one.close()


@pytest.mark.parametrize("text", ["", "x\n", "h\n0: zz zz 01 a b c d e f 7\n", "h\n0: 0:0\n"])
def test_broken_tables_of_sockets_are_left_out(text):
    assert sockets.parse_internet(text, "tcp") == {}
    assert sockets.parse_unix("h\nshort\n") == {}


def test_which_caches_the_kernel_gives_back():
    assert slabinfo.is_reclaimable("dentry")
    assert not slabinfo.is_reclaimable("task_struct")
    assert not slabinfo.is_reclaimable("../../../etc")


def test_inodes_of_open_sockets_are_not_given_back_whatever_their_mark():
    assert Path("/sys/kernel/slab/sock_inode_cache/reclaim_account").read_text().strip() == "1"
    assert not slabinfo.is_reclaimable("sock_inode_cache")
    assert not slabinfo.is_reclaimable("shmem_inode_cache")
    assert slabinfo.is_reclaimable("proc_inode_cache")


def test_caches_that_share_their_slabs_know_each_other():
    merged = slabinfo.merged_caches()
    for name, others in merged.items():
        assert name not in others
        for other in others:
            assert name in merged[other]
    assert any(merged.values())  # every kernel but one booted with slab_nomerge merges some


ODD = ["a\fb", "a\x1cb", "a\x85b", "a\u2028b", "a\rb", "a\udcffb"]


@pytest.mark.parametrize("name", ODD)
def test_a_name_ends_where_the_line_does(name, tmp_path):
    mount = f"36 35 0:50 / /mnt/{name} rw - tmpfs tmpfs rw\n"
    assert tmpfs.parse_mounts(mount + mount.replace("0:50", "0:51")) == {
        "0:50": f"/mnt/{name}",
        "0:51": f"/mnt/{name}",
    }
    hierarchy = cgroup.parse_hierarchy(f"30 20 0:30 / /{name} rw - cgroup2 cgroup2 rw\n")
    assert hierarchy == cgroup.Hierarchy(f"/{name}", 2)
    forged = (
        f"1000-2000 rw-p 00000000 00:00 1 /x{name}7f0000000000-7fffffffffff rw-p 0 00:00 0 [heap]"
    )
    (area,) = smaps.parse_areas([forged, "Rss: 4 kB", "Anonymous: 4 kB"])
    assert (area.start, area.end) == (0x1000, 0x2000)
    path = tmp_path / "text"
    path.write_bytes(os.fsencode(f"first {name}\nsecond\n"))
    assert list(read_lines(str(path))) == [f"first {name}", "second"]
    assert read_text(str(path)) == f"first {name}\nsecond\n"


def test_caches_with_odd_names():
    numbers = "10 20 192 21 1 : tunables 0 0 0 : slabdata 7 9 0"
    for name in ("dentry", "my cache", ":A-0000192", "dentry(1:x)"):
        (slab,) = slabinfo.parse_slabinfo(f"slabinfo - version: 2.1\n# name\n{name} {numbers}\n")
        assert (slab.name, slab.active, slab.objects, slab.bytes) == (name, 10, 20, 9 * 4096)


def test_a_socket_with_two_names_has_none():
    head = "Num RefCount Protocol Flags Type St Inode Path\n"
    row = "0000: 00000002 00000000 00010000 0001 01 {} {}\n"
    text = head + row.format(77, "/run/true") + row.format(5, "/run/other") + row.format(77, "FAKE")
    assert sockets.parse_unix(text) == {77: "unix", 5: "unix /run/other"}
