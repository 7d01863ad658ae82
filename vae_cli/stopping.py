"""Ctrl-C, SIGTERM, SIGUSR1: the step under way ends, then the run stops where it can go on."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# Windows has no SIGUSR1
SIGNALS = [signal.SIGINT, signal.SIGTERM, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else [])]


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or a signal ended the run; everything up to the last checkpoint is kept.

    Not an Exception: what forgives a failed picture must not swallow it.
    """

    def __init__(self, message: str, by_signal: bool) -> None:
        super().__init__(message)
        self.by_signal = by_signal


def signals_interrupt() -> None:
    """Let SIGTERM and SIGUSR1 end the program as Ctrl-C does, before there is a run to stop."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Interrupted("", by_signal=True)

    for number in SIGNALS:
        if number != signal.SIGINT:
            signal.signal(number, end)


class Stop:
    """Whether the run has been asked to stop."""

    def __init__(self) -> None:
        self.requested: int | None = None

    def check(self) -> None:
        """Raise Interrupted if it has."""
        if self.requested is not None:
            raise Interrupted("", by_signal=self.requested != signal.SIGINT)


@contextmanager
def stop_signals(patient: bool = False) -> Iterator[Stop]:
    """A Stop that Ctrl-C and signals set. A second one does not wait for the step to end.

    patient: it does, since Ctrl-C reaches a process of torchrun's twice.

    SIGUSR1 is what SLURM sends a job before it is preempted (`--signal=USR1@60`).

    An exception raised at any line, as Python's own Ctrl-C is, can land inside a library that is
    not written for it; the loop asks at a line of its choosing instead.
    """
    stop = Stop()

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.requested is not None and not patient:
            stop.check()
        stop.requested = number

    try:
        former = {n: signal.signal(n, ask) for n in SIGNALS}
    except ValueError:  # not in the main thread: whoever started us minds the signals
        yield stop
        return
    try:
        yield stop
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
