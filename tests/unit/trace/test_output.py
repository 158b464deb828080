# SPDX-License-Identifier: Apache-2.0
import contextlib
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from leakscope.errors import RecordingError
from leakscope.trace import output
from leakscope.trace.output import (
    check_replaceable,
    make_live_directory,
    plan_output,
    private_part,
)

NOBODY = 65534


def test_the_default_is_the_current_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert plan_output(None).path("app", 12) == tmp_path / "app.12.leakscope"


def test_a_directory_is_filled_with_default_names(tmp_path):
    assert plan_output(tmp_path).path("app", 12) == tmp_path / "app.12.leakscope"
    assert plan_output(f"{tmp_path}/").path("app", 13) == tmp_path / "app.13.leakscope"


def test_a_pattern_stands_for_program_and_pid(tmp_path):
    planned = plan_output(tmp_path / "100%%-%n-%p.rec")

    assert planned.path("app", 12) == tmp_path / "100%-app-12.rec"


def test_a_plain_name_belongs_to_the_first_process_and_others_get_their_pid(tmp_path):
    planned = plan_output(tmp_path / "out.leakscope")

    assert planned.path("sh", 12) == tmp_path / "out.leakscope"
    assert planned.path("app", 13) == tmp_path / "out.13.leakscope"
    assert planned.path("app", 13) == tmp_path / "out.13.1.leakscope"


def test_the_same_pid_after_an_exec_gets_another_file(tmp_path):
    planned = plan_output(tmp_path)

    assert planned.path("app", 12) == tmp_path / "app.12.leakscope"
    assert planned.path("app", 12) == tmp_path / "app.12.1.leakscope"
    assert planned.path("app", 12) == tmp_path / "app.12.2.leakscope"


def test_runs_with_one_name_do_not_replace_each_others_files(tmp_path):
    """Neither a later run nor one at the same time, and what came to nothing leaves no trace."""
    planned = [plan_output(tmp_path / "out.leakscope") for _ in range(4)]
    (tmp_path / "out.leakscope").write_text("an earlier run's")

    names = [each.path("app", 12 + n).name for n, each in enumerate(planned)]
    planned[3].release(tmp_path / names[3])
    planned[0].release(tmp_path / "out.leakscope")

    assert names == [f"out.{n}.leakscope" for n in (1, 2, 3, 4)]
    assert planned[0].path("child", 99).name == "out.99.leakscope"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["out.leakscope", *names[:3], "out.99.leakscope"]
    )
    assert (tmp_path / "out.leakscope").read_text() == "an earlier run's"


def test_a_snapshot_never_replaces_an_earlier_one(tmp_path):
    planned = plan_output(tmp_path)
    (tmp_path / "app.12.dump2.leakscope").symlink_to("nowhere")

    first = planned.snapshot("app", 12)

    assert first == tmp_path / "app.12.dump1.leakscope"
    assert planned.snapshot("app", 12) == tmp_path / "app.12.dump3.leakscope"


def test_a_hostile_program_name_stays_in_the_directory(tmp_path):
    path = plan_output(tmp_path).path("../../etc/x\n\x1b[2J", 1)

    assert path.parent == tmp_path
    assert path.name.isprintable()


def test_a_missing_directory(tmp_path):
    with pytest.raises(RecordingError, match=r"/gone does not exist") as caught:
        plan_output(tmp_path / "gone" / "x.leakscope")
    assert "mkdir" in caught.value.hint


def test_a_file_in_place_of_the_directory(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(RecordingError, match="is not a directory"):
        plan_output(tmp_path / "file" / "x.leakscope")


def test_a_directory_without_permission(shared_folder, as_nobody):
    shared_folder.chmod(0o555)

    def attempt():
        with pytest.raises(RecordingError) as caught:
            plan_output(shared_folder)
        return str(caught.value)

    assert (
        as_nobody(attempt) == f"the output directory {shared_folder} is not writable by this user"
    )


@contextlib.contextmanager
def mounted(place, options):
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.mark.root
def test_a_read_only_file_system(tmp_path):
    with (
        mounted(tmp_path / "read-only", "ro") as place,
        pytest.raises(RecordingError, match=f"{place} is not writable by this user"),
    ):
        plan_output(place)


@pytest.mark.root
def test_a_full_disk(tmp_path):
    with (
        mounted(tmp_path / "small", "size=64k") as place,
        pytest.raises(RecordingError, match=f"no room on the disk of {place}"),
    ):
        plan_output(place)


def test_what_is_no_regular_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "fifo")

    with pytest.raises(RecordingError, match="not a regular file"):
        plan_output(tmp_path / "fifo")


@pytest.mark.root
def test_a_link_of_somebody_else_is_not_written_to(tmp_path):
    link = tmp_path / "link"
    link.symlink_to("/etc/passwd")
    os.chown(link, NOBODY, NOBODY, follow_symlinks=False)

    with pytest.raises(RecordingError, match="symbolic link that belongs to someone else"):
        plan_output(link)


@pytest.mark.root
def test_a_file_of_somebody_else_is_not_replaced(tmp_path):
    path = tmp_path / "theirs"
    path.touch()
    os.chown(path, NOBODY, NOBODY)

    with pytest.raises(RecordingError, match="belongs to someone else"):
        plan_output(path)


def test_own_files_and_links_may_be_replaced(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")

    check_replaceable(tmp_path / "file")
    check_replaceable(tmp_path / "link")
    check_replaceable(tmp_path / "none")


def test_an_empty_path_and_a_zero_byte():
    with pytest.raises(RecordingError, match="is empty"):
        plan_output("")
    with pytest.raises(RecordingError, match="zero byte"):
        plan_output("a\0b")


def test_live_recordings_are_private_and_in_shared_memory(tmp_path):
    directory = make_live_directory(plan_output(tmp_path))
    outer = private_part(directory)
    try:
        assert outer.parent == Path("/dev/shm")
        for each in (outer, directory):
            status = each.stat()
            assert status.st_uid == os.geteuid()
            # Root's programs may become another user, who writes there too, but lists nothing.
            allowed = {outer: 0o711, directory: 0o1733} if os.geteuid() == 0 else {}
            assert stat.S_IMODE(status.st_mode) == allowed.get(each, 0o700)
    finally:
        shutil.rmtree(outer)


def test_live_recordings_go_next_to_the_output_when_shared_memory_is_small(tmp_path, monkeypatch):
    monkeypatch.setattr(output, "SHARED_MEMORY", tmp_path / "nowhere")

    directory = make_live_directory(plan_output(tmp_path))

    directory = private_part(directory)
    assert directory.parent == tmp_path
    assert directory.name.startswith(f".leakscope-{os.geteuid()}-")


def test_no_room_anywhere_is_said_with_every_place(tmp_path, monkeypatch):
    monkeypatch.setattr(output, "_PLENTY", 1 << 62)
    monkeypatch.setattr(output, "_LEAST", 1 << 61)

    with pytest.raises(RecordingError, match="no room for a live recording in /dev/shm") as caught:
        make_live_directory(plan_output(tmp_path))
    assert str(tmp_path) in str(caught.value)
