"""`task=sample`, `interpolate` and `traverse`: codes chosen by us, decoded and drawn."""

from __future__ import annotations

from pathlib import Path

import torch

from vae_cli import analysis, figures
from vae_cli.checking import nearest
from vae_cli.data.interface import Data
from vae_cli.errors import UserError
from vae_cli.eval_config import By, InterpolateTask, SampleTask, TraverseTask
from vae_cli.evaluation import encode
from vae_cli.figures.style import code_name
from vae_cli.schema.models import Posterior as PosteriorKind
from vae_cli.tasks.interface import (
    Report,
    curve_axes,
    example,
    refuse_index,
    seed_of,
    shown,
    write_npz,
)
from vae_cli.trained import TrainedRun


def sample(task: SampleTask, run: TrainedRun, out: Path) -> Report:
    """n draws from the prior: samples.png and samples.npz (z [n, Z], x [n, *shape])."""
    data = run.data()
    z = run.draw_codes(task.n, seed_of(task, run))
    x = run.decode(z)
    arrays = write_npz(out / "samples.npz", {"z": z, "x": x})
    picture = out / "samples.png"
    drawn = figures.samples(shown(data, x), curve_axes=curve_axes(data))
    figures.save_png(drawn, picture)
    return Report({"draws": f"{task.n:,} from N(0, I)"}, [picture, arrays])


def interpolate(task: InterpolateTask, run: TrainedRun, out: Path) -> Report:
    """From one test example to another: PNG, GIF there and back, npz with codes and values."""
    data = run.data()
    ends = [_chosen(*end, task.by, data) for end in (("from", task.from_), ("to", task.to))]
    names = [_end_name(index, data) for index in ends]
    start, end = (example(run, data, index, seed_of(task, run)) for index in ends)
    z, x = analysis.interpolate(run.vae, start, end, task.steps)
    axes, drawn = curve_axes(data), shown(data, x)
    base = out / f"interpolation_{ends[0]}_{ends[1]}"
    row = figures.interpolation(drawn[None], names, curve_axes=axes)
    figures.save_png(row, base.with_suffix(".png"))
    figures.save_gif(figures.animation_frames(drawn, curve_axes=axes), base.with_suffix(".gif"))
    write_npz(
        base.with_suffix(".npz"), {"z": z, "x": x, "examples": torch.tensor(ends), "names": names}
    )
    rows = {
        "from": f"test example {ends[0]} ({names[0]})",
        "to": f"test example {ends[1]} ({names[1]})",
        "distance": f"{float((z[-1] - z[0]).norm()):.3f} between the codes",
    }
    return Report(rows, [base.with_suffix(end) for end in (".png", ".gif", ".npz")])


def traverse(task: TraverseTask, run: TrainedRun, out: Path) -> Report:
    """Rows by dimension: traversals.png, and traversals.npz with dims, values and x."""
    data = run.data()
    seed = seed_of(task, run)
    if task.example is not None:
        refuse_index("example", task.example, data.test)
    codes = encode(run.vae, data, data.test, seed)
    dims = analysis.most_active(codes)[: task.num_dims]
    steps = torch.linspace(-task.limit, task.limit, task.steps)
    gaussian = run.config.model.posterior is PosteriorKind.gaussian
    if gaussian:
        origin, values = torch.zeros(run.model.latent_dim), steps.expand(len(dims), -1)
        name = "value of the code"
    else:  # no prior to measure by: the codes themselves
        scale, origin = torch.std_mean(codes.mean, dim=0, unbiased=False)
        values = origin[dims, None] + scale[dims, None] * steps
        name = "standard deviations of the code"
    if task.example is not None:
        origin = run.encode(example(run, data, task.example, seed)[None]).mean[0].cpu()
    x = analysis.traverse(run.vae, origin.to(run.device), dims, values.to(run.device))
    picture = out / "traversals.png"
    drawn = figures.traversals(
        shown(data, x),
        steps,
        dims.tolist(),
        kl=codes.kl.mean(0)[dims] if gaussian else None,
        curve_axes=curve_axes(data),
        value_name=name,
    )
    figures.save_png(drawn, picture)
    arrays = write_npz(
        out / "traversals.npz", {"dims": dims, "values": values, "origin": origin, "x": x}
    )
    rows = {
        "dimensions": f"{', '.join(map(code_name, dims.tolist()))} (most active first)",
        name: f"{-task.limit:g} to {task.limit:g} in {task.steps} steps",
    }
    return Report(rows, [picture, arrays])


def _chosen(setting: str, text: str, by: By, data: Data) -> int:
    """The test example that `from` or `to` means: the first of a class, or the one so numbered."""
    labels = data.test.labels
    if by is By.label and labels is None:
        raise UserError(f"by=label: {data.name} has no labels; use by=index")
    if by is By.index or labels is None:
        if not text.lstrip("-").isdigit():
            raise UserError(f"{setting}={text}: must be the number of a test example")
        refuse_index(setting, int(text), data.test)
        return int(text)
    present = labels.unique().tolist()
    names = data.class_names or tuple(map(str, range(max(present) + 1)))
    if text in names:
        label = names.index(text)
    elif text.isdigit() and int(text) < len(names):
        label = int(text)
    else:
        close = "" if text.isdigit() else nearest(text, names)
        raise UserError(
            f"{setting}={text}: no such class{close}; there are {', '.join(names)};"
            " a test example by its number with by=index"
        )
    found = (labels == label).nonzero()
    if len(found) == 0:
        raise UserError(f"{setting}={text}: no test example is of this class")
    return int(found[0])


def _end_name(index: int, data: Data) -> str:
    """What stands under an end: its class, its curve's parameters, else its number."""
    if data.test.labels is not None:
        label = int(data.test.labels[index])
        return data.class_names[label] if data.class_names else str(label)
    if data.test.parameters:
        return ", ".join(f"{k}={float(v[index]):.2f}" for k, v in data.test.parameters.items())
    return f"example {index}"
