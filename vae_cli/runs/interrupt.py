"""Ctrl-C, SIGTERM, SIGUSR1 stop a run after the step under way. Imports no torch."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from vae_cli.console import OneLine

# SLURM sends SIGUSR1 before it preempts a job (`--signal=USR1@60`); Windows has none
SIGNALS = [getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, n)]


class Interrupted(OneLine, KeyboardInterrupt):
    """A signal ended the run; its last checkpoint stays. by_signal: false for Ctrl-C."""

    def __init__(self, message: str, by_signal: bool) -> None:
        super().__init__(message)
        self.by_signal = by_signal


@dataclass
class Interrupt:
    """Whether the run has been asked to stop. requested: the number of the signal, or None."""

    requested: int | None = None

    def check(self) -> None:
        """Raise Interrupted if the run has been asked to stop."""
        if self.requested is not None:
            raise Interrupted("", by_signal=self.requested != signal.SIGINT)


def signals_interrupt() -> None:
    """Let SIGTERM and SIGUSR1 end the program as Ctrl-C does, while there is no run to stop."""
    for number in SIGNALS[1:]:
        signal.signal(number, lambda number, frame: Interrupt(number).check())


@contextmanager
def interruptible(patient: bool = False) -> Iterator[Interrupt]:
    """Yield an Interrupt that signals set; a second signal raises Interrupted, unless `patient`."""
    interrupt = Interrupt()

    def ask(number: int, frame: FrameType | None) -> None:
        if not patient:  # torchrun forwards Ctrl-C a second time
            interrupt.check()
        interrupt.requested = number

    in_main_thread = threading.current_thread() is threading.main_thread()  # others get no signals
    before = {n: signal.signal(n, ask) for n in SIGNALS} if in_main_thread else {}
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
