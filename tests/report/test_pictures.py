"""Pictures of real, tiny runs: models side by side."""

from PIL import Image

from vae_cli import training
from vae_cli.report import pictures
from vae_cli.report.sweep import read_sweep

TINY = ("dataset=digits", "epochs=1", "model.hidden_sizes=[16]", "figures=none")


def train(folder, make_config, *overrides):
    for i, override in enumerate(overrides):
        training.train(make_config(*TINY, *override.split()), folder / f"{i}")
    return read_sweep([folder])


def test_every_picture_of_a_beta_sweep(tmp_path, make_config):
    sweep = train(tmp_path / "runs", make_config, "beta=1", "beta=4", "beta=4 seed=1")
    drawn, failed = pictures.draw(sweep, tmp_path / "figures")
    assert failed == []
    assert [path.name for _, path in drawn] == [
        "rate_distortion.png",
        "metrics_by_beta.png",
        "active_units_by_beta.png",
        "samples_by_beta.png",
        "reconstructions_by_beta.png",
    ]
    for _, path in drawn:
        with Image.open(path) as image:
            assert min(image.size) > 200


def test_side_by_side_are_runs_like_the_best_of_one_seed(tmp_path, write_run, measured):
    for beta in (4.0, 1.0, 0.5):
        for lr in (0.1, 0.2):
            for seed in (2, 1):
                name = f"beta={beta},lr={lr},seed={seed}"
                metrics = measured(beta, 1.0 + (lr == 0.1))
                write_run(tmp_path / name, metrics, beta=beta, seed=seed, optimizer__lr=lr)
    sweep = read_sweep([tmp_path])
    chosen = pictures.side_by_side(sweep, "beta")
    assert {label: run.name for label, run in chosen.items()} == {
        f"beta = {beta:g}": f"beta={beta},lr=0.2,seed=1" for beta in (0.5, 1.0, 4.0)
    }


def test_autoencoders_have_no_samples(tmp_path, make_config):
    runs = ("model=ae model.latent_dim=2", "model=ae model.latent_dim=3")
    sweep = train(tmp_path / "runs", make_config, *runs)
    drawn, failed = pictures.draw(sweep, tmp_path / "figures")
    assert failed == []
    names = [path.name for _, path in drawn]
    assert "reconstructions_by_latent_dim.png" in names
    assert "samples_by_latent_dim.png" not in names


def test_weights_behind_a_link_that_leads_out_are_not_loaded(tmp_path, make_config):
    sweep = train(tmp_path / "runs", make_config, "beta=1", "beta=4")
    weights = tmp_path / "runs" / "0" / "model.safetensors"
    weights.rename(tmp_path / "elsewhere")
    weights.symlink_to(tmp_path / "elsewhere")
    _, failed = pictures.draw(sweep, tmp_path / "figures")
    assert len(failed) == 2
    assert all("a link that leads out of the folder" in line for line in failed)
