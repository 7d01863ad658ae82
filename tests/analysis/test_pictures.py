"""Which pictures a run gets, that they are there, and that drawing costs a run nothing."""

import json
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from vae_cli.analysis import pictures
from vae_cli.analysis.pictures import Pictures, draw_all, fitting
from vae_cli.analysis.trained import TrainedRun, load_run
from vae_cli.console import UserError
from vae_cli.data.labels import find_example, name_of
from vae_cli.training.build import load_data
from vae_cli.training.loop import train
from vae_cli.vae.vae import build_vae

DIGITS = ("dataset=digits", "dataset.test_size=70", "model.hidden_sizes=[16]")
CURVES = ("dataset=beta_pdf", "dataset.num_curves=700", "dataset.test_size=40")
EVERY = {"loss_curves.png", "reconstructions.png", "traversals.png", "interpolation.png"}
IMAGES = EVERY | {"interpolation.gif"}
VAE = {"samples.png", "code_histograms.png", "kl_bars.png"}
PLANE, MORE = {"latent_scatter.png", "manifold.png"}, {"latent_scatter.png", "tsne.png"}
FITTING = [
    ((*DIGITS, "model=ae", "model.latent_dim=2"), IMAGES | PLANE),
    ((*DIGITS, "model=ae", "model.latent_dim=3"), IMAGES | MORE),
    (
        (*DIGITS, "model=ae", "model.latent_dim=3", "objective=aae"),
        IMAGES | MORE | {"samples.png"},
    ),
    ((*DIGITS, "model.latent_dim=2", "interpolate=[1,0,6]"), IMAGES | VAE | PLANE),
    ((*DIGITS, "model.latent_dim=2", "prior=mixture"), (IMAGES | VAE | PLANE) - {"kl_bars.png"}),
    (CURVES, EVERY | VAE | PLANE | {"residuals.png"}),
]


@pytest.fixture
def run_of(make_config, tmp_path):
    """A run that has just ended, with weights as they were drawn: run_of("beta=1", …)."""

    def make(*overrides: str) -> TrainedRun:
        config = make_config(*overrides)
        line = {"epoch": 1, "step": 7, "train/loss": 3.0, "train/kl": 1.0}
        (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
        data = load_data(config)
        return TrainedRun(tmp_path, config, build_vae(config, data.shape).eval(), 1, data)

    return make


def drawn_in(folder: Path) -> set[str]:
    return {path.name for path in (folder / "figures").iterdir()}


@pytest.mark.parametrize(
    ("overrides", "expected"), FITTING, ids=lambda part: " ".join(sorted(part))
)
def test_what_fits_a_run_is_drawn(overrides, expected, run_of, caplog, capsys):
    run = run_of(*overrides)
    assert set(fitting(run)) == expected
    paths = draw_all(run, run.folder)
    assert not caplog.records
    assert ("no kl_bars.png: with prior=mixture" in capsys.readouterr().err) == (
        "prior=mixture" in overrides
    )
    assert drawn_in(run.folder) == {path.name for path in paths} == expected


def test_a_picture_that_fails_is_said_and_the_others_are_drawn(run_of, monkeypatch, capsys):
    def fail(run):
        raise RuntimeError("no ink")

    monkeypatch.setattr(pictures, "_residuals", fail)
    run = run_of(*CURVES)
    draw_all(run, run.folder)
    assert drawn_in(run.folder) == EVERY | VAE | PLANE
    assert "residuals.png could not be drawn: no ink" in capsys.readouterr().err


def test_a_run_gets_pictures_in_tensorboard_and_in_its_folder(make_config, tmp_path):
    train(make_config(*DIGITS, "model.latent_dim=2", "epochs=2"), tmp_path, [Pictures()])
    expected = IMAGES | VAE | PLANE
    assert drawn_in(tmp_path) == expected
    events = EventAccumulator(str(tmp_path)).Reload()
    tags = ["latent_plane", "reconstructions", "samples"]  # the others are files
    assert sorted(events.Tags()["images"]) == tags
    assert {len(events.Images(tag)) for tag in tags} == {3}  # before training, after each epoch
    config = ProjectorConfig()
    text_format.Parse((tmp_path / "projector_config.pbtxt").read_text(), config)
    (embedding,) = config.embeddings
    codes, run = np.loadtxt(tmp_path / embedding.tensor_path, delimiter="\t"), load_run(tmp_path)
    np.testing.assert_allclose(codes[:, :2], run.codes.mean, rtol=1e-4, atol=1e-4)
    assert codes.shape == (70, 3)  # two dimensions and a zero: the projector wants three


def test_pictures_leave_the_model_and_random_numbers_as_they_were(make_config, tmp_path):
    config, weights = make_config(*DIGITS, "epochs=2"), []
    for name, observers in (("with", [Pictures()]), ("without", [])):
        train(config, tmp_path / name, observers)
        weights.append((tmp_path / name / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_classes_are_found_by_their_names(run_of, tmp_path):
    curves, path = np.random.default_rng(0).normal(size=(60, 5)), tmp_path / "a.npz"
    settings = ("dataset=arrays", f"dataset.train={path}", "dataset.test_size=20", "batch_size=8")
    for labels, known, unknown in (
        (np.array([-1, 1]), ("-1", "1"), "0"),
        (np.array([1e30, np.inf, 2**63]), ("1e+30", "inf"), "2"),
        (np.array(["up", "down"]), ("down", "0", "up"), "2"),
    ):
        np.savez(path, x=curves, y=np.resize(labels, 60))
        run = run_of(*settings)
        found = [find_example(run.data(), "from", name, "auto") for name in known]
        names = [name_of(run.data(), index) for index in found]
        assert names == ["down" if name == "0" else name for name in known]
        with pytest.raises(UserError, match=f"from={unknown}: no such test example"):
            find_example(run.data(), "from", unknown, "auto")
        figure = pictures.figures.latent_scatter(run)
        assert len(figure.axes[0].get_legend().get_texts()) == len(labels)
        pictures._interpolation(run, 3)
        pictures._interpolation(run_of(*settings, f"interpolate=['{known[0]}','{known[-1]}']"), 3)
    for labels in (np.linspace(0, 1, 60), [*np.linspace(0, 1, 57), *[np.nan, np.inf, 2]]):
        np.savez(path, x=curves, y=labels)  # measurements get a colour bar
        assert len(pictures.figures.latent_scatter(run_of(*settings)).axes) == 2
    assert name_of(run_of(*settings).data(), 3).startswith("y=0.")


@pytest.mark.parametrize("override", ["beta=1", "manifold_range=[-3,3]", "model=ae"])
def test_a_manifold_varies_the_first_code_along_a_row(override, run_of, monkeypatch):
    run = run_of(*DIGITS, "model.latent_dim=2", "manifold_size=3", override)
    asked, decode = [], run.decode
    monkeypatch.setattr(run, "decode", lambda z: asked.append(z) or decode(z))
    pictures._manifold(run)
    (z,) = asked
    assert (z[:, :, 0].diff(dim=1) > 0).all()
    assert (z[:, :, 1].diff(dim=0) < 0).all()  # the second code grows upwards
    prior = -3.0 if "range" in override else -1.645  # the 5 % quantile, or the setting
    low = run.codes.mean[:, 0].quantile(0.05) if override == "model=ae" else prior
    assert float(z[0, 0, 0]) == pytest.approx(float(low), abs=0.05)
