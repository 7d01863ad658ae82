"""What holds for every figure: nothing cut off or overlapping, inputs untouched, no pyplot."""

import ast
import inspect
from pathlib import Path

import pytest
import torch

from vae_cli import figures
from vae_cli.figures import CurveAxes, image_array

NAN, INF = float("nan"), float("inf")
torch.manual_seed(0)
GRID = CurveAxes(torch.linspace(0, 1, 100), "x", "log density")
CURVES = torch.randn(12, 100).cumsum(1)
GREY = torch.rand(12, 1, 28, 28)
VALUES = torch.linspace(-3, 3, 4)
HISTORY = [{"epoch": i, "train/loss": 1 / i, "val/kl": 2 / i, "val/elbo": -i} for i in (1, 2, 3)]

CASES = {
    "reconstructions": lambda x, c: figures.reconstructions(x, {"a long row label": x}),
    "reconstructions rgb": lambda x, c: figures.reconstructions(x[:1].expand(1, 3, 28, 28), {}),
    "reconstructions curves": lambda x, c: figures.reconstructions(c[:5], {"made": -c[:5]}, GRID),
    "reconstructions vectors": lambda x, c: figures.reconstructions(c[:1, :4], {"m": c[:1, :4]}),
    "samples": lambda x, c: figures.samples(x),
    "samples many channels": lambda x, c: figures.samples(x[:4].expand(4, 2, 28, 28)),
    "samples curves": lambda x, c: figures.samples(c, GRID),
    "samples single number": lambda x, c: figures.samples(c[:3, :1]),
    "loss": lambda x, c: figures.loss_curves(HISTORY),
    "scatter": lambda x, c: figures.latent_scatter(c[:, :2], torch.arange(12) % 10),
    "scatter 30": lambda x, c: figures.latent_scatter(
        c.reshape(-1, 2), torch.arange(600) % 30, [f"class number {i}" for i in range(30)]
    ),
    "scatter parameters": lambda x, c: figures.latent_scatter(
        c[:, :2], torch.zeros(12), ["one class"], {"a": c[:, 2], "b": c[:, 3]}
    ),
    "scatter one": lambda x, c: figures.latent_scatter(c[:1, :2]),
    "manifold": lambda x, c: figures.manifold(x, VALUES, VALUES[:3]),
    "manifold one": lambda x, c: figures.manifold(x[:1], VALUES[:1], VALUES[:1]),
    "manifold curves": lambda x, c: figures.manifold(c, VALUES[:3], VALUES, GRID),
    "traversals": lambda x, c: figures.traversals(
        x.reshape(3, 4, 1, 28, 28), VALUES, [0, 1, 127], VALUES
    ),
    "traversals curves": lambda x, c: figures.traversals(
        c.reshape(3, 4, 100), VALUES, [0, 1, 2], VALUES, GRID
    ),
    "traversals one": lambda x, c: figures.traversals(c[None, :1], VALUES[:1], [0]),
    "interpolation": lambda x, c: figures.interpolation(x[None], ["validation example 17", "b"]),
    "interpolation legs": lambda x, c: figures.interpolation(
        x.unflatten(0, (3, 4)), ["1", "0", "ankle boot", "a long name"]
    ),
    "interpolation one": lambda x, c: figures.interpolation(x[None, :1], ["start", "end"]),
    "interpolation curves": lambda x, c: figures.interpolation(c[None], ["start", "end"], GRID),
    "interpolation curve legs": lambda x, c: figures.interpolation(
        c.unflatten(0, (3, 4)), ["a", "b", "a = 0.1, b = 2", "d"], GRID
    ),
    "interpolation one curve": lambda x, c: figures.interpolation(c[None, :1], ["start", "end"]),
    "histograms": lambda x, c: figures.code_histograms(c, c.abs()),
    "histogram": lambda x, c: figures.code_histograms(c[:1, :1]),
    "kl": lambda x, c: figures.kl_bars(c[0], c[0] > 0),
    "kl one": lambda x, c: figures.kl_bars(c[0, :1], c[0, :1] > 0),
    "residuals": lambda x, c: figures.residuals(c, -c, GRID),
    "residuals one": lambda x, c: figures.residuals(c[:1], -c[:1]),
    "fit": lambda x, c: figures.curve_fit(c[0], c[1], GRID, "Beta(2, 3)", "decoder"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_everything_fits_and_nothing_overlaps(case):
    x, c = GREY.clone(), CURVES.clone()
    figure = CASES[case](x, c)
    pixels = image_array(figure)
    assert torch.equal(x, GREY)
    assert torch.equal(c, CURVES)
    assert figure.get_suptitle()
    edges = [pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]
    assert all((edge == 255).all() for edge in edges), "something is cut off"
    texts = [figure._suptitle, figure._supxlabel, *figure.legends]
    boxes = [t.get_window_extent() for t in texts if t is not None]
    boxes += [ax.get_tightbbox() for ax in figure.axes]
    for i, box in enumerate(boxes):
        for other in boxes[i + 1 :]:
            assert not box.padded(-1).overlaps(other.padded(-1)), (box, other)


@pytest.mark.parametrize("bad", [NAN, INF, 1e38])
@pytest.mark.parametrize("case", CASES)
def test_odd_values_are_drawn_around(case, bad):
    x, c = GREY.clone(), CURVES.clone()
    x[0, 0, 3:5], c[0, 5], c[1], c[2, 6] = bad, bad, bad, -bad
    assert CASES[case](x, c).get_suptitle()


def test_odd_values_reach_the_pixels_without_a_warning():
    c = CURVES.clone()
    c[0, 5], c[1], c[2, 7] = 1e38, NAN, -1e38
    for case in ("samples curves", "reconstructions curves", "manifold curves", "fit", "residuals"):
        image_array(CASES[case](GREY, c))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_any_float_type_and_gradients(dtype):
    x, c = GREY.to(dtype).requires_grad_(), CURVES.to(dtype).requires_grad_()
    for case in ("reconstructions", "reconstructions curves", "traversals", "histograms", "kl"):
        CASES[case](x, c)


def test_float64_inputs_are_not_written_to():
    c = CURVES.double()
    c[0, 5] = INF  # drawn as a gap, but not in the caller's tensor
    x = GREY.double()
    for case in CASES.values():
        case(x, c)
    assert c[0, 5] == INF
    assert torch.equal(x, GREY.double())


def test_every_public_figure_is_among_the_cases():
    source = inspect.getsource(inspect.getmodule(test_every_public_figure_is_among_the_cases))
    other = {"CurveAxes", "animation_frames", "image_array", "save_gif", "save_png", "tile_grid"}
    for name in set(figures.__all__) - other:
        assert f"figures.{name}(" in source, name


def test_pyplot_is_not_imported():
    for path in Path(figures.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert "pyplot" not in (node.module or "")
            if isinstance(node, ast.Import):
                assert all("pyplot" not in alias.name for alias in node.names)
