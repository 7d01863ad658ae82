import errno
import io
import os
import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vae_cli import events
from vae_cli.events import EventFile, EventWriter

pytestmark = pytest.mark.filterwarnings("default")


def points(folder: Path) -> list[tuple[int, float]]:
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return [(event.step, event.value) for event in found.Scalars("x")]


def write(writer: EventWriter, *steps: int) -> None:
    for step in steps:
        writer.add_scalar("x", step / 2, step)
    writer.flush()


@pytest.fixture
def errors() -> list[OSError | None]:
    return []


class Full(io.FileIO):
    """A file on a disk with room for 100 more bytes."""

    def write(self, content: bytes) -> int:
        if len(content) <= 100:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(content[:100])


def test_points_are_read_back_and_only_whole_records_are_there(tmp_path, errors):
    writer = EventWriter(tmp_path, errors.append)
    write(writer, 1, 2, 3)
    writer.close()
    assert points(tmp_path) == [(1, 0.5), (2, 1.0), (3, 1.5)]
    assert set(errors) == {None}


def test_a_full_disk_leaves_whole_records_and_what_waited_follows(tmp_path, errors, monkeypatch):
    writer = EventWriter(tmp_path, errors.append)
    write(writer, 1)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda path, mode, buffering: Full(path, "ab"))
        write(writer, 2, 3, 4, 5, 6)
        assert [error.errno for error in errors if error] == [errno.ENOSPC]
        assert points(tmp_path) == [(1, 0.5)]
    write(writer, 7)
    assert points(tmp_path) == [(step, step / 2) for step in range(1, 8)]
    assert errors[-1] is None


def test_a_disk_that_stays_full_does_not_fill_the_memory(tmp_path, errors, monkeypatch):
    monkeypatch.setattr(events, "MOST_PENDING", 1000)
    monkeypatch.setattr(Path, "open", lambda path, mode, buffering: Full(path, "ab"))
    file = EventFile(tmp_path, errors.append)
    for _ in range(200):
        file.add_event(events.Event(step=1, wall_time=time.time()))
    assert file.lost > 100
    assert file.pending.tell() < 2000


def test_a_resumed_session_replaces_what_came_after_its_checkpoint(tmp_path, errors):
    first = EventWriter(tmp_path, errors.append)
    write(first, 1, 2, 3, 4, 5)  # killed after this; its checkpoint was made at step 3
    (killed,) = tmp_path.glob("events.*")
    with killed.open("ab") as file:
        file.write(killed.read_bytes()[-30:-10])  # half a record
    second = EventWriter(tmp_path, errors.append, purge_step=4)
    write(second, 4)
    third = EventWriter(tmp_path, errors.append, purge_step=4)
    write(third, 4, 5, 6)
    assert points(tmp_path) == [(step, step / 2) for step in range(1, 7)]
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [w._events.event_writer.path.name for w in (first, second, third)]


def test_from_the_start_again_drops_step_0_too(tmp_path, errors):
    write(EventWriter(tmp_path, errors.append), 0, 1, 2)
    write(EventWriter(tmp_path, errors.append, purge_step=0), 0, 1)
    assert points(tmp_path) == [(0, 0.0), (1, 0.5)]
