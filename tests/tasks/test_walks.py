"""task=sample, interpolate, traverse, embed and figures on real runs."""

import numpy as np
import pytest
import torch
from PIL import Image

from vae_cli import load_run
from vae_cli.evaluation import encode


def test_samples_are_the_runs_own(evaluate, images):
    done = evaluate(images, "task=sample", "n=5", "seed=3")
    assert done.code == 0, done.err
    assert done.files == {"samples.png", "samples.npz"}
    arrays, run = done.npz("samples.npz"), load_run(images)
    assert np.allclose(arrays["x"], run.sample(5, seed=3).numpy())
    assert np.allclose(arrays["x"], run.decode(arrays["z"]).numpy(), atol=1e-6)


def test_interpolation_goes_from_a_class_to_a_class(evaluate, images):
    done = evaluate(images, "task=interpolate", "from=3", "to=8", "steps=7")
    assert done.code == 0, done.err
    (name,) = {file.split(".")[0] for file in done.files}
    assert done.files == {f"{name}.png", f"{name}.gif", f"{name}.npz"}
    arrays, run = done.npz(f"{name}.npz"), load_run(images)
    test = run.data().test
    assert test.labels[torch.from_numpy(arrays["examples"])].tolist() == [3, 8]
    assert arrays["names"].tolist() == ["3", "8"]
    start, end = test.x[torch.from_numpy(arrays["examples"])]
    assert np.allclose(arrays["x"], run.interpolate(start, end, 7).numpy(), atol=1e-6)
    assert np.allclose(np.diff(arrays["z"], 2, axis=0), 0, atol=1e-5)  # a straight line
    with Image.open(done.folder / f"{name}.gif") as film:
        assert film.n_frames >= 7  # there and back


def test_interpolation_between_examples_by_number(evaluate, images):
    done = evaluate(images, "task=interpolate", "from=12", "to=200", "by=index", "steps=3")
    assert done.npz("interpolation_12_200.npz")["examples"].tolist() == [12, 200]


def test_interpolation_between_curves_is_by_number(evaluate, curves):
    done = evaluate(curves, "task=interpolate", "from=3", "to=8", "steps=4")
    assert done.code == 0, done.err
    assert done.npz("interpolation_3_8.npz")["x"].shape == (4, 100)


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        (("from=12", "to=8"), "from=12: no such class; there are 0, 1, 2"),
        (("from=3", "to=cat"), "to=cat: no such class"),
        (("from=3", "to=-1"), "to=-1: no such class"),
        (("from=3", "to=297", "by=index"), "to=297: no such test example; there are 297, from 0"),
        (("from=three", "to=8", "by=index"), "from=three: must be the number of a test example"),
    ],
    ids=str,
)
def test_ends_that_are_not_there(evaluate, images, ends, expected):
    done = evaluate(images, "task=interpolate", *ends)
    assert (done.code, done.out) == (2, "")
    assert expected in done.err
    assert not done.folder.exists()


def test_curves_have_no_labels_to_interpolate_by(evaluate, curves):
    done = evaluate(curves, "task=interpolate", "from=0", "to=1", "by=label")
    assert done.code == 2
    assert "by=label: beta_pdf has no labels; use by=index" in done.err


def test_traversals_put_the_most_active_dimension_first(evaluate, images):
    done = evaluate(images, "task=traverse", "num_dims=3", "steps=5", "limit=2")
    assert done.code == 0, done.err
    arrays, run = done.npz("traversals.npz"), load_run(images)
    kl = run.embed("test").kl.mean(0)
    assert arrays["dims"].tolist() == kl.argsort(descending=True)[:3].tolist()
    assert np.allclose(arrays["x"], run.traverse(arrays["dims"], torch.linspace(-2, 2, 5)))
    assert arrays["x"].shape == (3, 5, 1, 8, 8)


def test_traversals_through_an_example_keep_its_other_dimensions(evaluate, images):
    done = evaluate(images, "task=traverse", "num_dims=1", "example=4")
    run = load_run(images)
    code = run.encode(run.data().test.x[4:5]).mean[0]
    assert np.allclose(done.npz("traversals.npz")["origin"], code, atol=1e-6)
    refused = evaluate(images, "task=traverse", "example=297")
    assert refused.code == 2
    assert "example=297: no such test example" in refused.err


def test_traversals_of_an_autoencoder_are_measured_by_its_codes(evaluate, autoencoder):
    done = evaluate(autoencoder, "task=traverse", "limit=2", "steps=3")
    assert done.code == 0, done.err
    arrays, mean = done.npz("traversals.npz"), load_run(autoencoder).embed("test").mean
    assert np.allclose(arrays["origin"], mean.mean(0), atol=1e-6)
    first = arrays["dims"][0]
    wanted = mean[:, first].mean() + 2 * mean[:, first].std(unbiased=False)
    assert arrays["values"][0, -1] == pytest.approx(float(wanted), rel=1e-5)


def test_embeddings_are_the_posteriors_with_what_is_known_of_each(evaluate, images, curves):
    done = evaluate(images, "task=embed")
    assert done.files == {"codes_train.npz", "codes_val.npz", "codes_test.npz"}
    run = load_run(images)
    data = run.data()
    for name in ("train", "val", "test"):
        arrays, split = done.npz(f"codes_{name}.npz"), getattr(data, name)
        codes = encode(run.vae, data, split, run.config.seed)
        for key in ("mean", "stddev", "kl"):
            assert np.array_equal(arrays[key], getattr(codes, key))
        assert np.array_equal(arrays["labels"], split.labels)
        assert arrays["class_names"].tolist() == list("0123456789")
    of_curves = evaluate(curves, "task=embed", f"out={done.folder}2")
    assert of_curves.code == 0
    arrays = np.load(done.folder.with_name("out2") / "codes_test.npz")
    assert np.array_equal(arrays["parameter_a"], load_run(curves).data().test.parameters["a"])
    assert not done.folder.with_name("out2").joinpath("codes_val.npz").exists()


def test_figures_are_drawn_again_and_the_runs_own_stay(evaluate, curves):
    done = evaluate(curves, "task=figures")
    assert done.code == 0, done.err
    assert {"figures/reconstructions.png", "figures/loss_curves.png"} <= done.files
    assert not (curves / "figures").exists()  # trained with figures=none


def test_walks_in_python_refuse_what_cannot_be(images):
    run = load_run(images)
    with pytest.raises(ValueError, match=r"dims=\[8\]: must be some of 0 to 7"):
        run.traverse([8], [0.0])
    with pytest.raises(ValueError, match=r"origin has shape \[2\]"):
        run.traverse([0], [0.0], origin=[0.0, 0.0])
    with pytest.raises(ValueError, match="the run has train, val, test"):
        run.embed("tset")
    with pytest.raises(ValueError, match="must be"):
        run.interpolate(torch.zeros(64), torch.zeros(64), 3)
