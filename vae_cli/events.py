"""TensorBoard's event file, written so that a full disk costs points and never a run.

TensorBoard's own writer writes from a thread: on a full disk the thread dies with a traceback, a
half-written record hides all that follows, and a kill takes up to two minutes of points with it.
Here records are kept in memory until `flush`, which appends them whole or not at all.
"""

from __future__ import annotations

import io
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.writer import FileWriter

FLUSH_SECONDS = 10.0
MOST_PENDING = 64 << 20  # bytes kept for a disk that may have room again; beyond that they are lost


class EventFile:
    """Appends events to a new file in a folder. Stands in for TensorBoard's EventFileWriter.

    report: called with the error where events cannot be written, and with None where they are.
    """

    def __init__(self, folder: Path, report: Callable[[OSError | None], None]) -> None:
        self.folder = folder
        self.path = folder / _name(folder)
        self.report = report
        self.pending = io.BytesIO()
        self.written = 0  # bytes in the file
        self.lost = 0  # events
        self.flushed = time.monotonic()
        self.add_event(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def add_event(self, event: Any) -> None:
        """Take an event; every FLUSH_SECONDS those taken are written."""
        if self.pending.tell() > MOST_PENDING:
            self.lost += 1
            return
        RecordWriter(self.pending).write(event.SerializeToString())
        if time.monotonic() - self.flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Append what was taken; where that fails, the file stays as it was."""
        self.flushed = time.monotonic()
        records = self.pending.getvalue()
        try:
            with self.path.open("ab", buffering=0) as file:
                try:
                    done = 0
                    while done < len(records):  # one write may take a part
                        done += file.write(records[done:])
                except OSError:
                    file.truncate(self.written)  # half a record would hide those after it
                    raise
        except OSError as error:
            self.report(error)
            return
        self.written += len(records)
        self.pending = io.BytesIO()
        if not self.lost:
            self.report(None)

    def close(self) -> None:
        """Write the rest."""
        self.flush()

    def get_logdir(self) -> str:
        """The folder, as TensorBoard's writer names it."""
        return str(self.folder)


class EventWriter(SummaryWriter):
    """torch's SummaryWriter over an EventFile.

    purge_step: the first step that a resumed run writes: what an earlier session wrote from there
    on is not shown; None for a new run.
    """

    def __init__(
        self, folder: Path, report: Callable[[OSError | None], None], purge_step: int | None = None
    ) -> None:
        self._events = _FileWriter(EventFile(folder, report))
        super().__init__(str(folder))
        if purge_step is not None:
            start = SessionLog(status=SessionLog.START)
            self._events.add_event(Event(session_log=start), purge_step)

    def _get_file_writer(self) -> FileWriter:
        self.file_writer: Any = self._events
        self.all_writers: Any = {self.log_dir: self._events}
        return self._events


class _FileWriter(FileWriter):
    def __init__(self, file: EventFile) -> None:
        self.event_writer = file


def _name(folder: Path) -> str:
    """TensorBoard reads the files of a folder by their names, so a new one must come last."""
    stamps = [path.name.split(".")[3] for path in folder.glob("events.out.tfevents.*")]
    newest = max((int(stamp) for stamp in stamps if stamp.isdigit()), default=0)
    now = max(int(time.time()), newest + 1)
    return f"events.out.tfevents.{now:010d}.{socket.gethostname()}.{os.getpid()}.0"
