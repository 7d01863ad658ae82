"""What a person sees while a run goes on: a few lines, a progress bar, a table at the end."""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType

from tqdm import tqdm


class Progress:
    """A bar over all steps on a terminal; a plain line an epoch anywhere else."""

    def __init__(self, steps: int, done: int, epochs: int) -> None:
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

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.bar.close()

    def step(self, count: int) -> None:
        """`count` more steps are done."""
        self.bar.update(count)

    def numbers(self, epoch: int, metrics: dict[str, float]) -> None:
        """Newest training numbers, shown beside the bar."""
        if self.terminal:
            self.bar.set_description(f"epoch {epoch}/{self.epochs}", refresh=False)
            shown = {key: f"{metrics[key]:.2f}" for key in ("loss", "reconstruction", "kl")}
            self.bar.set_postfix(shown, refresh=False)

    def epoch(self, record: dict[str, float]) -> None:
        """An epoch is done. Without a terminal: one line with its numbers."""
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


def say(line: str) -> None:
    """A line on standard error, above a bar if there is one."""
    tqdm.write(line, file=sys.stderr)


def table(rows: dict[str, str]) -> str:
    """Two aligned columns."""
    width = max(map(len, rows))
    return "\n".join(f"  {name:<{width}}  {text}" for name, text in rows.items())


def quoted(path: Path) -> str:
    """A path as it can be typed into a shell."""
    text = str(path)
    return text if all(c.isalnum() or c in "/._-=,+:@" for c in text) else f"'{text}'"
