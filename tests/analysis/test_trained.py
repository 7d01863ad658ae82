"""A loaded run: the numbers it was measured with, its methods, and what is no run."""

from functools import partial

import pytest
import torch

from vae_cli.analysis.trained import load_run
from vae_cli.console import UserError


def test_encode_decode_reconstruct_sample(images):
    run = load_run(str(images))
    x = run.data().test.x[:5]
    mean = run.encode(x).mean
    assert mean.shape == (5, 8)
    assert run.decode(mean).equal(run.reconstruct(x))
    assert run.reconstruct(x.numpy()).equal(run.reconstruct(x))
    assert run.reconstruct(x).min() >= 0  # pictures, not logits
    assert run.decode(run.draw_codes(3, seed=1)).equal(run.sample(3, seed=1))
    assert not run.sample(3).equal(run.sample(3))


def test_codes_walks_and_likelihood_have_the_shapes_they_promise(images):
    run = load_run(images)
    x = run.data().test.x[:2]
    assert run.interpolate(x[0], x[1], steps=5)[-1].allclose(run.reconstruct(x)[1], atol=1e-6)
    codes = run.embed("val")
    assert codes.mean.shape == codes.stddev.shape == codes.kl.shape == (200, 8)
    values = run.log_likelihood(x, num_samples=10, seed=0)
    assert values.equal(run.log_likelihood(x.numpy(), num_samples=10, seed=0))
    assert run.fit(run.reconstruct(x)[0], num_starts=2, seed=0).residual_norm < 1e-3


def test_a_traversal_sets_one_dimension_and_keeps_the_others(images):
    run = load_run(images)
    origin = torch.linspace(-1, 1, 8)
    x = run.traverse([3, 0], [-1.0, 0.0, 2.0], origin)
    assert x.shape == (2, 3, 1, 8, 8)
    z = origin.repeat(2, 1)
    z[0, 3] = z[1, 0] = 2.0
    torch.testing.assert_close(x[:, 2], run.decode(z))


def test_wrong_shapes_and_values_say_what_is_right(images):
    run = load_run(images)
    with pytest.raises(UserError, match=r"shape \[2, 64\].* \[N, 1, 8, 8\]"):
        run.encode(torch.rand(2, 64))
    with pytest.raises(UserError, match=r"shape \[3\].* \[N, 8\]"):
        run.decode([1.0, 2.0, 3.0])
    for x in (torch.full((2, 1, 8, 8), 255, dtype=torch.uint8), torch.full((2, 1, 8, 8), -0.4)):
        calls = (run.encode, run.reconstruct, partial(run.log_likelihood, num_samples=2))
        for call in (*calls, lambda x: run.interpolate(*x, steps=2), lambda x: run.fit(x[0], 1)):
            with pytest.raises(UserError, match=r"got values from .* 0 to 1: divide bytes by 255"):
                call(x)


def test_curves_have_values_of_any_size(curves):
    run = load_run(curves)
    assert run.examples(3).max() > 1
    assert run.encode(300 * run.examples(3)).mean.shape == (3, run.vae.latent_dim)


def test_examples_are_what_the_network_takes(images, trained):
    run = load_run(images)
    assert run.examples(3).equal(run.data().prepare(run.data().test.x[:3], torch.Generator()))
    assert run.examples([2, 0], split="train").equal(run.data().train.x[[2, 0]])
    drawn = load_run(trained("dataset=digits", "dataset.binarize=dynamic", "epochs=1"))
    x = drawn.examples(20)
    assert set(x.unique().tolist()) == {0, 1}
    assert drawn.examples([19, 3]).equal(x[[19, 3]])  # one draw for good


def test_the_files_of_a_run_are_tables_and_numbers(images):
    run = load_run(images)
    assert run.summary["status"] == "completed"
    assert run.metrics["test/elbo"] == run.summary["metrics"]["test/elbo"]
    assert run.history["epoch"].tolist() == [1, 2]
    assert run.history["val/loss"].iloc[-1] == run.metrics["val/loss"]


def test_a_notebook_shows_pictures_by_name_and_examples(images):
    run = load_run(images)
    for figure in (run.show("reconstructions"), run.show(run.sample(4), "Four samples")):
        assert figure._repr_png_().startswith(b"\x89PNG")
    assert run.show(run.traverse([0, 1], [-1.0, 1.0])).axes[0].get_images()
    with pytest.raises(UserError, match=r"no picture sample of this run; there are .*samples"):
        run.show("sample")


def test_loading_leaves_the_random_numbers_alone(images):
    before = torch.get_rng_state()
    load_run(images)
    assert torch.get_rng_state().equal(before)


def test_what_is_no_run_is_refused_and_the_best_whole_weights_are_taken(images, tmp_path, capsys):
    with pytest.raises(UserError, match="not a run folder"):
        load_run(tmp_path)
    (tmp_path / "config.yaml").write_bytes((images / "config.yaml").read_bytes())
    with pytest.raises(UserError, match="no whole checkpoint"):
        load_run(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    last = (images / "checkpoints/last.ckpt").read_bytes()
    (tmp_path / "checkpoints/last.ckpt").write_bytes(last)
    assert load_run(tmp_path).epoch == 2  # a run that has not ended
    (tmp_path / "model.safetensors").write_bytes(last)
    assert load_run(tmp_path).epoch == 2
    assert "model.safetensors is damaged" in capsys.readouterr().err
