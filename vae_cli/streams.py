"""Standard streams that cannot end a run: closed, a pipe whose reader has gone, a full disk."""

from __future__ import annotations

import os
import sys
from typing import Any


class Tolerant:
    """A text stream whose failed writes are dropped from then on, with a word about why."""

    def __init__(self, stream: Any, name: str) -> None:
        self._stream = stream
        self._name = name

    def write(self, text: str) -> int:
        """Write, or drop the text."""
        try:
            return int(self._stream.write(text))
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        """Flush, or drop what was not written."""
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _give_up(self, error: OSError) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
        # the reader of a pipe that closes it (head) has seen enough; anything else is worth a word
        if not isinstance(error, BrokenPipeError) and self._name == "stdout":
            print(f"standard output cannot be written: {error.strerror}", file=sys.stderr)


def guard() -> None:
    """Make this process's standard streams tolerant; call it once, before anything is opened.

    A closed one becomes the null device: otherwise the next file opened would get its number, and
    what a library writes to standard error would end up in a checkpoint.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))
    sys.stdout = Tolerant(sys.stdout, "stdout")
    sys.stderr = Tolerant(sys.stderr, "stderr")
