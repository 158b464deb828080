# SPDX-License-Identifier: Apache-2.0
"""What the tests of the readers of other tools' text share."""

import contextlib
from pathlib import Path

from hypothesis import strategies as st

from leakscope._analysis import analyse
from leakscope.errors import RecordingError
from leakscope.formats import read_foreign
from leakscope.model.columns import Column
from leakscope.recording import packed

SAMPLES = Path(__file__).parents[2] / "shared" / "samples"
KINDS = ("definite", "indirect", "possible", "reachable")


def reached(recording):
    """(bytes, blocks) of each kind."""
    reach = recording.site_reach
    return tuple((int(reach[f"{k}_bytes"].sum()), int(reach[f"{k}_count"].sum())) for k in KINDS)


def held(recording):
    """(bytes, blocks) that are held."""
    return int(recording.sites["live_bytes"].sum()), int(recording.sites["live_count"].sum())


def one(path):
    (recording,) = read_foreign(path if isinstance(path, Path) else SAMPLES / path)
    return recording


def findings_of(recording):
    return analyse(recording, debuginfod=False)


def notes(recording):
    return "\n".join(recording.coverage.notes)


def written(tmp_path, text):
    path = tmp_path / "report"  # no format is known by its name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def edits(*parts):
    """Edits of a file: place, bytes taken out, bytes put in; and where it is cut."""
    new = st.sampled_from(parts) | st.binary(max_size=8)
    return st.tuples(
        st.lists(st.tuples(st.floats(0, 1), st.integers(0, 200), new), min_size=1, max_size=6),
        st.floats(0.02, 1),
    )


def damaged(tmp_path_factory, data, edited):
    """Read data that were edited: recordings, judged and kept, with their findings; or none."""
    changes, cut = edited
    for place, length, new in changes:
        at = int(place * len(data))
        data = data[:at] + new + data[at + length :]
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(data[: int(cut * len(data))])
    found = ()
    with contextlib.suppress(RecordingError):
        found = read_foreign(path) or ()
    for recording in found:
        packed.write(recording, path.with_suffix(".kept"))
        packed.read(path.with_suffix(".kept"))
    return [(recording, findings_of(recording)) for recording in found]


def read_damaged(tmp_path_factory, sample, edited):
    """Read a sample that was edited: recordings of it are judged and kept, or it is refused."""
    for recording, _ in damaged(tmp_path_factory, (SAMPLES / sample).read_bytes(), edited):
        assert Column.DEATHS in recording.absent
