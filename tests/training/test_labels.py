"""model.condition_on_labels, from the data through the engines to the samples."""

import numpy as np
import pytest
import torch

from vae_cli.analysis import pictures
from vae_cli.analysis.samplers import find_class
from vae_cli.analysis.trained import load_run
from vae_cli.console import UserError
from vae_cli.training.build import load_data
from vae_cli.training.engines import Recorder
from vae_cli.training.loop import train
from vae_cli.training.state import TrainState
from vae_cli.training.step import Engine

from .conftest import SMALL

CPU = torch.device("cpu")
LABELS = ("model.condition_on_labels=true", "dataset=digits", "figures=none", "image_every=0")


def test_a_conditional_model_gets_the_label_of_each_example(make_config):
    config = make_config(*LABELS, "batch_size=500")
    data = load_data(config)
    given = []

    def update(raw, labels, now, row=None):
        given.append((raw, labels))

    for kind in (Engine, Recorder):
        engine = kind(state := TrainState(config, data, CPU), data, config, state.vae.forward)
        engine.update = update
        order = torch.randperm(len(data.train))
        list(engine.steps(order, state.schedule(), first=0))
        x, labels = (torch.cat(parts) for parts in zip(*given, strict=True))
        assert x.equal(data.train.x[order])
        assert labels.equal(data.train.labels[order])
        given.clear()


@pytest.mark.parametrize("model", [("model=mlp_vae",), SMALL["conv_vae"], ("model=ae",)])
def test_a_conditional_model_learns_the_classes_and_comes_back(make_config, tmp_path, model):
    # two classes of one pattern each that the codes cannot tell: only the label does
    torch.manual_seed(0)
    labels = torch.arange(400) % 2
    x = torch.zeros(400, 1, 8, 8, dtype=torch.uint8)
    x[labels == 0, :, :4] = 255
    x[labels == 1, :, 4:] = 255
    np.savez(tmp_path / "two.npz", x=x.numpy(), y=np.array(["up", "down"])[labels.numpy()])
    own = (f"dataset.train={tmp_path / 'two.npz'}", "model.condition_on_labels=true", "epochs=8")
    quick = ("figures=none", "image_every=0", "optimizer.lr=0.01", "beta=100", "batch_size=20")
    quick = quick[:3] + quick[4:] if model == ("model=ae",) else quick
    train(make_config("dataset=arrays", *model, *own, *quick), tmp_path / "run")
    run = load_run(tmp_path / "run")
    names = run.data().class_names
    z = torch.zeros(1, run.vae.latent_dim)
    for label, name in enumerate(names):
        half = run.given(label).decode(z)[0, 0]
        up, down = half[:4].mean(), half[4:].mean()
        assert (up > 0.9 > 0.1 > down) if name == "up" else (down > 0.9 > 0.1 > up)
    with pytest.raises(UserError, match="given"):
        run.decode(z)
    if run.config.is_generative:
        assert run.kl.sum() < 0.1  # the label says it all
        draws = run.sample(4, seed=0)[:, 0, :4].mean((1, 2)) > 0.5
        assert draws.tolist() == [name == "up" for name in names] * 2  # each class in turn
    test = run.data().test
    again = run.given(test.labels).reconstruct(test.x / 255)
    assert (again - test.x / 255).abs().mean() < 0.1


def test_a_sample_can_be_of_one_class(make_config, trained, tmp_path):
    folder = trained("dataset=digits", "model.condition_on_labels=true", "epochs=1")
    run = load_run(folder)
    walk, _ = pictures.samples(run, run.draw_codes(5, 0), label=find_class(run, "7"))
    assert walk["labels"].tolist() == [7] * 5
    assert walk["x"].equal(run.given(7).sample(5, run.config.seed))
    with pytest.raises(UserError, match="label=x: no such class; give one of 0, 1, 2"):
        find_class(run, "x")
    with pytest.raises(UserError, match="the model is not conditional"):
        find_class(load_run(trained("dataset=digits", "epochs=1")), "7")


def test_one_hot_codes_of_a_conditional_model_can_be_sampled(trained):
    words = ("posterior=categorical", "model.condition_on_labels=true", "epochs=1")
    assert load_run(trained("dataset=digits", *words)).sample(10, seed=0).isfinite().all()


def test_other_data_are_measured_with_the_classes_of_the_model(make_config, tmp_path):
    def write(x: torch.Tensor, names: list[str] | None) -> None:
        y = {} if names is None else {"y": np.array(names)}
        np.savez(tmp_path / "x.npz", x=x.numpy(), **y)

    x, names = torch.rand(60, 5), ["a", "b", "c"] * 20
    write(x, names)
    own = ("dataset=arrays", f"dataset.train={tmp_path / 'x.npz'}", "batch_size=20", "epochs=1")
    train(make_config(*own, *LABELS[:1], *LABELS[2:]), tmp_path / "run")
    write(x[1:], names[1:])
    run = load_run(tmp_path / "run")
    run.trained_on = None
    assert run.data().class_names == ("a", "b", "c")
    few = torch.tensor([name != "a" for name in names])
    write(x[few], [name for name in names if name != "a"])  # its first class is b
    other = load_run(tmp_path / "run")
    other.trained_on = None
    assert other.data().class_names == ("a", "b", "c")
    assert set(other.data().train.labels.tolist()) == {1, 2}
    test = other.data().test
    expected = run.given(test.labels).encode(test.x).mean
    torch.testing.assert_close(other.codes.mean, expected)
    write(x, ["a", "b", "x"] * 20)
    stranger = load_run(tmp_path / "run")
    stranger.trained_on = None
    with pytest.raises(UserError, match=r"class x is none that the model knows \(a, b, c\)"):
        stranger.data()
    write(x, None)
    with pytest.raises(UserError, match="condition_on_labels=true: dataset=arrays has no labels"):
        stranger.data()


def test_labels_that_the_data_lacks_are_refused(make_config):
    with pytest.raises(UserError, match="condition_on_labels=true: dataset=beta_pdf has no labels"):
        load_data(make_config("dataset=beta_pdf", "model.condition_on_labels=true"))
