"""A loaded run: the numbers it was measured with, its methods, and what is no run."""

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


def test_wrong_shapes_say_what_is_right(images):
    run = load_run(images)
    with pytest.raises(ValueError, match=r"shape \[2, 64\].* \[N, 1, 8, 8\]"):
        run.encode(torch.rand(2, 64))
    with pytest.raises(ValueError, match=r"shape \[3\].* \[N, 8\]"):
        run.decode([1.0, 2.0, 3.0])


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
