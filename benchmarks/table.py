"""Measurements as Markdown tables, for a terminal and for README.md."""

from statistics import mean
from typing import Any

from benchmarks.measurement import Rounds, gathered, overheads, ratios, spread
from benchmarks.workloads import Work

HEAD = (
    "contender",
    "examples/s",
    "s an epoch, pass",
    "s, whole",
    "ours is × it",
    "bf16 is × it",
    "peak MiB",
    "train loss",
    "test ELBO",
)


def rows(work: Work, rounds: Rounds) -> list[list[str]]:
    """Return a row for each contender: medians (min–max), ratios within rounds, mean losses."""
    return [[name, *_cells(rounds, name)] for name in work.contenders if _was_run(rounds, name)]


def comparison(work: Work, rounds: Rounds) -> str:
    """Write the table of a work, with its title."""
    epochs = f"{work.epochs} epochs, the first not timed"
    title = (
        f"{work.name}: {work.model} {'-'.join(map(str, work.widths))}-{work.latent_dim},"
        f" {work.examples:,} {work.data} images of {'x'.join(map(str, work.shape))},"
        f" batch {work.batch_size}, {epochs}, {len(rounds)} rounds"
    )
    lines = [title, "", markdown(HEAD, rows(work, rounds))]
    if shares := overheads(rounds):
        share = spread([100 * value for value in shares]).text(".1f")
        lines += ["", f"logging, checkpoints, pictures, progress: {share} % of a whole epoch"]
    return "\n".join(lines)


def growth(works: tuple[Work, ...], found: list[Rounds]) -> str:
    """Write the table of the growth: what changed, our time and the floor's."""
    head = ("change", "steps", "s an epoch, pass", "µs a step", "floor µs a step", "ours / floor")
    cells = []
    for work, rounds in zip(works, found, strict=True):
        pair = [gathered(rounds, name, "epoch_seconds") for name in ("ours", "floor")]
        if not all(pair):
            continue
        ours, floor = (spread(seconds).median for seconds in pair)
        steps = [f"{1e6 * s * work.batch_size / work.examples:,.0f}" for s in (ours, floor)]
        change = work.name.removeprefix("growth ")
        cells.append([change, str(work.steps), f"{ours:.3f}", *steps, f"{ours / floor:.2f}"])
    return "how the cost grows: the MLP on synthetic images, one thing changed at a time\n\n" + (
        markdown(head, cells)
    )


def startup(found: dict[str, Any]) -> str:
    """Write the result of `startup.measure` in one line."""
    return (
        f"start-up: {found['first_step']['median']:.2f} s from Enter to the end of the first step,"
        f" {found['imports']['median']:.2f} s for import torch, torchvision:"
        f" {_range(found['ratio'])} times"
    )


def beta(found: dict[str, Any]) -> str:
    """Write the result of `beta_curves.measure` in four lines."""
    when = found["reached_pass_seconds"]
    reached = "not reached" if when is None else f"reached after {when:.1f} s of training"
    whole = found["reached_whole_seconds"]
    everything = "" if whole is None else f" ({whole:.1f} s with all that comes with it)"
    return "\n".join(
        (
            f"beta curves: experiment=beta_pdf, mean of {found['seeds']} seeds",
            f"  published total {found['published_total']:,.0f}: {reached}{everything}",
            f"  100 epochs: {_range(found['pass_seconds'])} s of training,"
            f" {_range(found['whole_seconds'])} s in all; total {found['mean_total']:,.0f}",
            f"  the tutorial's loop: {found['tutorial_seconds_extrapolated']['median']:,.0f} s,"
            f" extrapolated from {found['tutorial_steps_timed']:,} of 500,000 steps a round:"
            f" {_range(found['ratio'], '.0f')} times as long",
        )
    )


def markdown(head: tuple[str, ...], cells: list[list[str]]) -> str:
    """Write a Markdown table with aligned columns."""
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    lines = [head, tuple("-" * width for width in widths), *cells]
    return "\n".join(
        "| " + " | ".join(f"{c:<{w}}" for c, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    )


def _was_run(rounds: Rounds, name: str) -> bool:
    return any(name in found for found in rounds)


def _cells(rounds: Rounds, name: str) -> list[str]:
    speeds = gathered(rounds, name, "examples_per_second")
    memory = gathered(rounds, name, "peak_memory_mib")
    return [
        spread(speeds).text(),
        f"{spread(gathered(rounds, name, 'epoch_seconds')).median:.3f}",
        _if_any(gathered(rounds, name, "whole_seconds"), ".3f", middle=True),
        _ratio(rounds, "ours", name),
        _ratio(rounds, "ours bf16", name),
        f"{max(memory):,.0f}" if memory else "",
        _if_any(gathered(rounds, name, "train_loss"), ".2f"),
        _if_any(gathered(rounds, name, "test_elbo"), ".2f"),
    ]


def _ratio(rounds: Rounds, ours: str, name: str) -> str:
    values = ratios(rounds, ours, name) if ours != name else []
    return spread(values).text(".2f") if values else ""


def _if_any(values: list[float], form: str, middle: bool = False) -> str:
    if not values:
        return ""
    return format(spread(values).median if middle else mean(values), form)


def _range(found: dict[str, Any], form: str = ".2f") -> str:
    return f"{found['median']:{form}} ({found['low']:{form}}–{found['high']:{form}})"
