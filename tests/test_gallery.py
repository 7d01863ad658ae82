"""Which pictures a finished run gets, that they are there, and that drawing costs it nothing."""

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from vae_cli import build, gallery, pictures, projector, training
from vae_cli.data.interface import Data, Split
from vae_cli.errors import UserError
from vae_cli.viewer import Viewer

DIGITS = ("dataset=digits", "dataset.test_size=70", "model.hidden_sizes=[16]")
CONV = ("dataset=digits", "dataset.test_size=70", "model=conv_vae", "model.channels=[4,8]")
CURVES = (
    "dataset=beta_pdf",
    "dataset.num_curves=700",
    "dataset.test_size=40",
    "dataset.num_points=20",
    "model.hidden_sizes=[16]",
)
LINE = {"epoch": 1, "step": 7, "train/loss": 3.0, "train/kl": 1.0}

EVERY = {
    "loss_curves.png",
    "reconstructions.png",
    "latent_scatter.png",
    "traversals.png",
    "interpolation.png",
    "interpolation.gif",
}
VAE = EVERY | {"samples.png", "code_histograms.png", "kl_bars.png"}
FITTING = {
    "an autoencoder of two dimensions": (
        (*DIGITS, "model=ae", "model.latent_dim=2"),
        EVERY | {"manifold.png"},
    ),
    "an autoencoder of more": ((*DIGITS, "model=ae", "model.latent_dim=5"), EVERY | {"tsne.png"}),
    "a VAE of one": (
        (*DIGITS, "model.latent_dim=1"),
        VAE - {"latent_scatter.png"},
    ),
    "a VAE of two": ((*DIGITS, "model.latent_dim=2"), VAE | {"manifold.png"}),
    "a VAE of more": ((*DIGITS, "model.latent_dim=3"), VAE | {"tsne.png"}),
    "a convolutional VAE of very many": ((*CONV, "model.latent_dim=55"), VAE | {"tsne.png"}),
    "curves": (CURVES, VAE | {"manifold.png", "residuals.png"}),
    "curves, autoencoder of three": (
        (*CURVES, "model=ae", "model.latent_dim=3"),
        EVERY | {"tsne.png", "residuals.png"},
    ),
    "a walk and a range": (
        (*DIGITS, "model.latent_dim=2", "interpolate=[1,0,6]", "manifold_range=[-3,3]"),
        VAE | {"manifold.png"},
    ),
}


@pytest.fixture
def finished(make_config, tmp_path) -> Callable:
    """The parts of a run that has just ended: vae, data, config, folder."""

    def make(*overrides: str, data: Data | None = None):
        config = make_config(*overrides)
        data = data or build.data(config)
        (tmp_path / "metrics.jsonl").write_text(json.dumps(LINE) + "\n")
        return build.vae(config, data.shape), data, config, tmp_path

    return make


def drawn_in(folder: Path) -> set[str]:
    return {path.name for path in (folder / "figures").iterdir()}


@pytest.mark.parametrize("case", FITTING)
def test_what_fits_is_drawn(case, finished, caplog):
    overrides, expected = FITTING[case]
    *parts, folder = finished(*overrides)
    paths = gallery.draw(*parts, folder)
    assert not [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert drawn_in(folder) == {path.name for path in paths} == expected
    for path in paths:
        with Image.open(path) as picture:
            assert min(picture.size) > 100


def colour_data(count: int = 24) -> Data:
    """Random colour images, wide, without labels."""
    x = torch.randint(256, (count, 3, 12, 16), dtype=torch.uint8)
    return Data(name="random", train=Split(x), val=None, test=Split(x))


def test_colour_images_without_labels(finished):
    parts = finished(*CONV, "model.latent_dim=3", data=colour_data())
    gallery.draw(*parts)
    assert drawn_in(parts[-1]) == VAE | {"tsne.png"}


def test_a_run_of_few_examples_is_drawn_too(finished):
    parts = finished(*CONV, "model.latent_dim=3", data=colour_data(3))
    gallery.draw(*parts)
    assert drawn_in(parts[-1]) == VAE


def test_a_picture_that_fails_is_logged_and_the_others_are_drawn(
    make_config, tmp_path, monkeypatch, caplog, capsys
):
    def fail(view):
        raise RuntimeError("no ink")

    broken = tuple(
        picture._replace(make=fail) if picture.file == "samples.png" else picture
        for picture in pictures.PICTURES
    )
    monkeypatch.setattr(gallery, "PICTURES", broken)
    config = make_config(*DIGITS, "model.latent_dim=2", "epochs=1", "image_every=0")
    training.train(config, tmp_path)
    assert drawn_in(tmp_path) == (VAE | {"manifold.png"}) - {"samples.png"}
    (record,) = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert "samples.png" in record.getMessage()
    assert "no ink" in str(record.exc_info[1])
    assert "no ink" in capsys.readouterr().err
    assert json.loads((tmp_path / "summary.json").read_text())["status"] == "completed"


def test_tensorboard_gets_the_pictures_in_the_runs_own_folder(make_config, tmp_path):
    config = make_config(*DIGITS, "model.latent_dim=2", "epochs=1")
    training.train(config, tmp_path)
    events = EventAccumulator(str(tmp_path)).Reload()
    stills = {Path(name).stem for name in VAE | {"manifold.png"} if name.endswith(".png")}
    images = {"reconstructions", "samples"} | {f"figures/{name}" for name in stills}
    assert set(events.Tags()["images"]) == images
    (shown,) = events.Images("figures/manifold")
    assert shown.encoded_image_string == (tmp_path / "figures" / "manifold.png").read_bytes()
    with Image.open(tmp_path / "figures" / "manifold.png") as picture:
        assert (shown.width, shown.height) == picture.size
    assert [path.parent for path in tmp_path.rglob("events.out*")] == [tmp_path]


NOTHING_DRAWN = """
import sys
from vae_cli import cli
code = cli.run(sys.argv[1:])
assert not any(name in sys.modules for name in ("matplotlib", "sklearn.manifold")), "imported"
sys.exit(code)
"""


def test_figures_none_draws_nothing_and_imports_no_matplotlib(tmp_path):
    options = ("epochs=1", "batch_size=512", "figures=none", f"hydra.run.dir={tmp_path}/run")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", NOTHING_DRAWN, *DIGITS, *options],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "run" / "figures").exists()
    assert not (tmp_path / "run" / "projector_config.pbtxt").exists()


TILES_ALONE = """
import sys
import torch
from vae_cli import figures, gallery, progressive, training
figures.tile_grid(torch.rand(4, 1, 8, 8), 2)
assert "matplotlib" not in sys.modules
assert "sklearn" not in sys.modules
figures.kl_bars
assert "matplotlib" in sys.modules
"""


def test_tiles_for_tensorboard_need_no_matplotlib():
    done = subprocess.run([sys.executable, "-c", TILES_ALONE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --------------------------------------------------------------------------------------- projector


def projected(folder: Path):
    """The projector's configuration and its tables, as TensorBoard reads them."""
    config = ProjectorConfig()
    text_format.Parse((folder / "projector_config.pbtxt").read_text(), config)
    (embedding,) = config.embeddings
    table = [
        [float(cell) for cell in line.split("\t")]
        for line in (folder / embedding.tensor_path).read_text().splitlines()
    ]
    return embedding, torch.tensor(table)


def test_the_projector_gets_codes_labels_and_images(finished):
    vae, data, config, folder = finished(*DIGITS, "model.latent_dim=5")
    view = Viewer(vae, data, config)
    projector.write(view, folder)
    embedding, codes = projected(folder)
    assert torch.allclose(codes, view.codes.mean, atol=1e-4)
    names = (folder / embedding.metadata_path).read_text().splitlines()
    assert names == [data.class_names[label] for label in data.test.labels]
    assert list(embedding.sprite.single_image_dim) == [8, 8]
    with Image.open(folder / embedding.sprite.image_path) as sprite:
        assert (sprite.size, sprite.mode) == ((72, 64), "L")  # 70 tiles in rows of 9
        tile = torch.from_numpy(np.asarray(sprite.crop((8, 0, 16, 8))).copy())
    assert torch.equal(tile, (data.prepare(data.test.x[1, 0], None) * 255).round().byte())


def test_the_projector_gets_what_curves_were_made_from(finished):
    vae, data, config, folder = finished(*CURVES)
    projector.write(Viewer(vae, data, config), folder)
    embedding, codes = projected(folder)
    assert codes.shape == (40, 3)  # two dimensions and a zero: the projector wants three
    assert (codes[:, 2] == 0).all()
    header, *rows = (folder / embedding.metadata_path).read_text().splitlines()
    assert header.split("\t") == list(data.test.parameters)
    assert len(rows) == 40
    assert not embedding.HasField("sprite")


def test_a_sprite_stays_below_tensorboards_limit():
    png, size = projector.sprite(torch.rand(1000, 3, 40, 80))
    assert size == (64, 32)
    picture = Image.open(BytesIO(png))
    assert (picture.size, picture.mode) == ((32 * 64, 32 * 32), "RGB")


# ------------------------------------------------------------------------------------ the pictures


def view_of(finished, *overrides: str, **how) -> Viewer:
    vae, data, config, _ = finished(*overrides, **how)
    return Viewer(vae, data, config, history=[LINE])


def decoded_by(picture: Callable, view: Viewer, monkeypatch) -> torch.Tensor:
    """The codes that a picture has decoded."""
    asked = []
    decoded = view.decoded
    monkeypatch.setattr(view, "decoded", lambda z: asked.append(z) or decoded(z))
    picture(view)
    (z,) = asked
    return z


def ticks(axis_labels) -> list[str]:
    return [label.get_text() for label in axis_labels]


def test_the_two_dimensions_that_matter_are_scattered_and_named(finished):
    view = view_of(finished, *DIGITS, "model.latent_dim=4")
    view.found = replace(view.found, kl=torch.tensor([0.1, 3.0, 0.2, 2.0]))
    figure = pictures.latent_scatter(view)
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("z2", "z4")
    assert "largest KL, of 4" in figure.get_suptitle()


def test_a_manifold_takes_its_range_from_the_prior_the_setting_or_the_codes(finished):
    edges = {}
    for name, model, override in (
        ("prior", "mlp_vae", "beta=1"),
        ("setting", "mlp_vae", "manifold_range=[-3,3]"),
        ("codes", "ae", "beta=1"),
    ):
        view = view_of(finished, *DIGITS, f"model={model}", "model.latent_dim=2", override)
        (ax,) = pictures.manifold(view).axes
        edges[name] = ticks(ax.get_xticklabels())[0]
    assert edges["prior"] == "−1.64"  # the 5 % quantile
    assert edges["setting"] == "−3"
    low = view.codes.mean[:, 0].quantile(0.025)
    assert float(edges["codes"].replace("−", "-")) == pytest.approx(float(low), abs=0.05)


def test_a_manifold_varies_the_first_code_along_a_row(finished, monkeypatch):
    view = view_of(finished, *DIGITS, "model.latent_dim=2", "manifold_size=3")
    z = decoded_by(pictures.manifold, view, monkeypatch)
    assert z[0, 1] == z[1, 1]
    assert z[0, 0] < z[1, 0]
    assert z[3, 0] == z[0, 0]


def test_traversals_vary_one_dimension_and_stay_where_the_codes_are(finished, monkeypatch):
    for model, reach in (("mlp_vae", 3.0), ("ae", None)):
        view = view_of(finished, *DIGITS, f"model={model}", "model.latent_dim=3")
        z = decoded_by(pictures.traversals, view, monkeypatch)
        for row, dim in enumerate(view.order):
            moving = z[row].std(0) > 1e-4
            assert moving.nonzero().flatten().tolist() == [dim]
            farthest = (z[row, :, dim] - z[row, :, dim].mean()).abs().max()
            expected = reach or 2 * view.codes.mean[:, dim].std(unbiased=False)
            assert float(farthest) == pytest.approx(float(expected), rel=1e-3)


def test_an_interpolation_goes_through_the_labels_that_were_asked_for(finished):
    view = view_of(finished, *DIGITS, "model.latent_dim=2", "interpolate=[1,0,6]")
    (ax,) = pictures.interpolation(view).axes
    assert ticks(ax.get_yticklabels()) == ["1", "0"]
    assert ticks(ax.texts) == ["0", "6"]
    frames = pictures.interpolation_frames(view)
    assert len(frames) == 2 * (2 * pictures.FRAMES - 1) - 2  # there and back, no stop twice


def test_a_label_that_is_not_there_is_said(finished):
    view = view_of(finished, *DIGITS, "interpolate=[1,77]")
    with pytest.raises(ValueError, match="no test example has the label 77"):
        pictures.interpolation(view)
    view = view_of(finished, *CONV, "interpolate=[0,1]", data=colour_data())
    with pytest.raises(ValueError, match="no labels"):
        pictures.interpolation(view)


def test_curves_are_interpolated_between_examples_named_by_what_they_were_made_from(finished):
    view = view_of(finished, *CURVES)
    _, bar = pictures.interpolation(view).axes
    a, b = (number[0] for number in view.test.parameters.values())
    assert ticks(bar.get_yticklabels())[0] == f"a = {a:.2f}\nb = {b:.2f}"


def test_an_autoencoders_history_has_no_kl(finished):
    view = view_of(finished, *DIGITS, "model=ae")
    assert [ax.get_title() for ax in pictures.loss_curves(view).axes] == ["loss"]


def test_drawing_leaves_the_model_as_it_was(finished):
    vae, data, config, folder = finished(*DIGITS, "model.latent_dim=2")
    vae.train()
    before = {name: weight.clone() for name, weight in vae.state_dict().items()}
    gallery.draw(vae, data, config, folder)
    assert vae.training
    assert all(torch.equal(before[name], weight) for name, weight in vae.state_dict().items())


def test_embedding_is_repeatable():
    codes = torch.randn(40, 60, generator=torch.Generator().manual_seed(0))
    assert torch.equal(pictures.embedded(codes), pictures.embedded(codes))


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("manifold_range=[3,-3]", "must be two numbers, the lower one first"),
        ("manifold_range=[1,2,3]", "must be two numbers, the lower one first"),
        ("manifold_size=1", "must be >= 2"),
        ("interpolate=[1]", "at least 2"),
        ("interpolate=[1,-2]", "must be >= 0"),
    ],
)
def test_settings_that_cannot_be_drawn_are_refused(override, complaint, make_config):
    with pytest.raises(UserError, match=complaint):
        make_config(override)


@pytest.mark.parametrize("model", ["mlp_vae", "ae"])
def test_a_code_that_says_nothing_is_drawn_too(model, finished, caplog):
    vae, data, config, folder = finished(*DIGITS, f"model={model}", "model.latent_dim=3")
    with torch.no_grad():
        for weight in vae.parameters():
            weight.zero_()
    gallery.draw(vae, data, config, folder)
    assert not [r.exc_info for r in caplog.records if r.levelno >= logging.WARNING]
    assert drawn_in(folder) == (VAE if model == "mlp_vae" else EVERY)
