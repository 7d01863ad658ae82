"""What a person sees of a run: short lines, a bar, a table. How it behaves beside others."""

import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, TextIO

from tqdm import tqdm


class OneLine:
    """An exception that says all in its message: a notebook shows that, and no traceback."""

    def _render_traceback_(self) -> list[str]:  # what IPython asks an exception for
        return [f"{type(self).__name__}: {self}"]


class UserError(OneLine, Exception):
    """A mistake or a missing thing that the user can mend: one clear line, exit code 2."""


class RunFailed(OneLine, Exception):
    """Work that had begun cannot go on, for a known reason: one clear line, exit code 1."""


class Forgiving:
    """A standard stream that drops text whose reader has gone: `| head`, a closed terminal."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write the text at once, or drop it and all that follows."""
        try:
            self.stream.write(text)
            self.stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())
        return len(text)


def one_line(text: object) -> str:
    """Join a text, or an error's message, into one line with single spaces."""
    return " ".join(str(text).split())


def in_notebook() -> bool:
    """Whether a notebook shows what is printed, and a bar too."""
    return type(sys.stdout).__module__ == "ipykernel.iostream"


def screen() -> TextIO:
    """Where lines and the bar go: standard error, which a notebook paints red: there the output."""
    return sys.stdout if in_notebook() else sys.stderr


def say(line: str) -> None:
    """Print a line on the screen, above a progress bar if there is one."""
    tqdm.write(line, file=screen())


def table(rows: dict[str, str]) -> str:
    """Format names and texts as two aligned columns."""
    width = max(map(len, rows))
    return "\n".join(f"  {name:<{width}}  {text}" for name, text in rows.items())


def count(number: int, noun: str) -> str:
    """Write a number with its noun: '1 epoch', '2,000 epochs'."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


class Progress:
    """Prints a line for each epoch and, on a terminal, shows a bar over all steps below them."""

    def __init__(self, steps: int, done: int, epochs: int, has_kl: bool, quiet: bool) -> None:
        """steps: updates of the whole training; done: updates that an earlier session made.

        has_kl: a plain autoencoder has none. quiet: print nothing.
        """
        self.epochs, self.quiet = epochs, quiet
        self.terms = {"reconstruction": "rec", "kl": "kl"} if has_kl else {}
        self.bar = tqdm(
            total=steps,
            initial=done,
            file=screen(),
            disable=quiet or not (in_notebook() or sys.stderr.isatty()),
            bar_format="{desc} {percentage:.0f}% {bar:10} {remaining} left",
            leave=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def step(self, count: int) -> None:
        """Move the bar by `count` updates."""
        self.bar.update(count)

    def numbers(self, epoch: int, metrics: dict[str, float]) -> None:
        """Show the newest training numbers beside the bar."""
        names = {"loss": "loss", **self.terms}.items()
        numbers = " ".join(f"{short} {metrics[name]:.1f}" for name, short in names)
        self.bar.set_description_str(f"epoch {epoch}/{self.epochs} {numbers}", refresh=False)

    def epoch(self, record: dict[str, float]) -> None:
        """Print an epoch's numbers in one line."""
        parts = [f"epoch {record['epoch']:.0f}/{self.epochs}"]
        for split in ("train", "val"):
            if f"{split}/loss" in record:
                named = (f"{name} {record[f'{split}/{name}']:.3f}" for name in self.terms)
                terms = f" ({', '.join(named)})".replace("kl", "KL") if self.terms else ""
                parts.append(f"{split} loss {record[f'{split}/loss']:.3f}{terms}")
        if not self.quiet:
            say("  ".join([*parts, f"{record['perf/seconds']:.1f} s"]))


def be_polite() -> None:
    """Let threads that wait sleep early where other programs run now; before torch is imported.

    Two runs whose threads spin stop each other: 16 to 44 s an epoch in place of 4.6, on two cores.
    A small network that runs by itself may need twice the time when they do not spin, so a program
    counts only when it is seen in most of three looks, not one that works for a moment.
    """
    looks: list[int] = []  # the number of other programs that run
    with suppress(OSError, ValueError):  # not Linux
        for _ in range(3):
            looks.append(int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0]) - 1)
            time.sleep(0.01)
        if sorted(looks)[1] >= max(1, (os.cpu_count() or 1) // 2):
            os.environ.setdefault("GOMP_SPINCOUNT", "1000")
