"""What a person sees while a run goes on: short lines, a progress bar, a table at the end."""

import sys
from types import TracebackType
from typing import Self

from tqdm import tqdm


class UserError(Exception):
    """A mistake or a missing thing that the user can mend: one clear line, exit code 2."""


class RunFailed(Exception):
    """Work that had begun cannot go on, for a known reason: one clear line, exit code 1."""


def one_line(text: object) -> str:
    """Join a text, or an error's message, into one line with single spaces."""
    return " ".join(str(text).split())


def say(line: str) -> None:
    """Print a line on standard error, above a progress bar if there is one."""
    tqdm.write(line, file=sys.stderr)


def table(rows: dict[str, str]) -> str:
    """Format names and texts as two aligned columns."""
    width = max(map(len, rows))
    return "\n".join(f"  {name:<{width}}  {text}" for name, text in rows.items())


class Progress:
    """Shows a bar over all steps on a terminal, and a plain line for each epoch anywhere else."""

    def __init__(self, steps: int, done: int, epochs: int) -> None:
        """steps: updates of the whole training; done: updates that an earlier session made."""
        self.epochs = epochs
        self.terminal = sys.stderr.isatty()
        self.bar = tqdm(
            total=steps,
            initial=done,
            unit=" steps",
            disable=not self.terminal,
            dynamic_ncols=True,
            leave=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.bar.close()

    def step(self, count: int) -> None:
        """Move the bar by `count` updates."""
        self.bar.update(count)

    def numbers(self, epoch: int, metrics: dict[str, float]) -> None:
        """Show the newest training numbers beside the bar."""
        if self.terminal:
            self.bar.set_description(f"epoch {epoch}/{self.epochs}", refresh=False)
            newest = {key: f"{metrics[key]:.2f}" for key in ("loss", "reconstruction", "kl")}
            self.bar.set_postfix(newest, refresh=False)

    def epoch(self, record: dict[str, float]) -> None:
        """Print an epoch's numbers in one line, where there is no terminal for a bar."""
        if self.terminal:
            return
        parts = [f"epoch {record['epoch']:.0f}/{self.epochs}"]
        parts += [
            f"{split} loss {record[f'{split}/loss']:.3f}"
            f" (reconstruction {record[f'{split}/reconstruction']:.3f},"
            f" KL {record[f'{split}/kl']:.3f})"
            for split in ("train", "val")
            if f"{split}/loss" in record
        ]
        say("  ".join([*parts, f"{record['perf/seconds']:.1f} s"]))
