import pytest
import torch

from vae_cli import UserError, latest_run, load_run, training
from vae_cli.evaluation import evaluate
from vae_cli.run import read_summary


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make_config):
    folder = tmp_path_factory.mktemp("runs") / "a run"
    training.train(make_config("dataset=digits", "epochs=2", "figures=none"), folder)
    return folder


def test_a_loaded_run_gives_the_numbers_it_was_measured_with(folder):
    run = load_run(folder)
    data = run.data()
    found = evaluate(run.vae, data, data.test, run.config.beta, run.config.seed)
    saved = read_summary(folder)["metrics"]
    measured = found.metrics | {"active_units": found.active_units}
    assert measured == {k.removeprefix("test/"): saved[k] for k in saved if "test/" in k}


def test_encode_decode_reconstruct_sample(folder):
    run = load_run(str(folder))
    x = run.data().test.x[:5]
    posterior = run.encode(x)
    assert posterior.mean.shape == (5, 8)
    assert run.decode(posterior.mean).equal(run.reconstruct(x))
    assert run.reconstruct(x.numpy()).equal(run.reconstruct(x))
    assert run.reconstruct(x).min() >= 0  # pictures, not logits
    assert run.sample(3).shape == (3, 1, 8, 8)
    assert run.sample(3, seed=1).equal(run.sample(3, seed=1))
    assert not run.sample(3).equal(run.sample(3))
    assert not run.reconstruct(x).requires_grad
    assert run.model.latent_dim == run.config.model.latent_dim == 8
    assert "mlp_vae on digits" in repr(run)


def test_codes_walks_and_likelihood_have_the_shapes_they_promise(folder):
    run = load_run(latest_run(folder.parent))
    x = run.data().test.x[:2]
    assert run.interpolate(x[0], x[1], steps=5).shape == (5, 1, 8, 8)
    assert run.interpolate(x[0], x[1], steps=5)[-1].allclose(run.reconstruct(x)[1], atol=1e-6)
    assert run.traverse(dims=[3, 0], values=[-1, 0, 1]).shape == (2, 3, 1, 8, 8)
    codes = run.embed("val")
    assert codes.mean.shape == codes.stddev.shape == codes.kl.shape == (200, 8)
    values = run.log_likelihood(x, num_samples=10, seed=0)
    assert values.equal(run.log_likelihood(x.numpy(), num_samples=10, seed=0))
    found = run.fit(run.reconstruct(x)[0], num_starts=2, seed=0)
    assert found.best.decoded.shape == (1, 8, 8)
    assert found.best.residual_norm < 1e-3


def test_wrong_shapes_say_what_is_right(folder):
    run = load_run(folder)
    with pytest.raises(ValueError, match=r"shape \[2, 64\] and must be \[B, 1, 8, 8\]"):
        run.encode(torch.rand(2, 64))
    with pytest.raises(ValueError, match=r"shape \[3\] and must be \[N, 8\]"):
        run.decode([1.0, 2.0, 3.0])


def test_what_is_not_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="is not a run folder"):
        load_run(tmp_path)
    (tmp_path / "config.yaml").write_text("beta: [1")
    with pytest.raises(UserError, match=r"config.yaml cannot be read"):
        load_run(tmp_path)


def test_a_run_without_weights_is_refused(folder, tmp_path):
    (tmp_path / "config.yaml").write_bytes((folder / "config.yaml").read_bytes())
    with pytest.raises(UserError, match="holds no weights"):
        load_run(tmp_path)


def test_weights_of_another_model_are_refused(folder, tmp_path):
    text = (folder / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text.replace("- 128", "- 64"))
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(UserError, match="do not fit the model"):
        load_run(tmp_path)


def test_a_run_that_has_not_ended_gives_its_newest_weights(folder, tmp_path):
    (tmp_path / "config.yaml").write_bytes((folder / "config.yaml").read_bytes())
    (tmp_path / "checkpoints").mkdir()
    last = (folder / "checkpoints/last.ckpt").read_bytes()
    (tmp_path / "checkpoints/last.ckpt").write_bytes(last)
    assert load_run(tmp_path).epoch == 2
