from pathlib import Path

import torch
from torch.distributions import Beta, Uniform

from vae_cli import build

NOWHERE = Path("/nowhere")


def test_curves_are_those_drawn_one_by_one(make_config):
    config = make_config("dataset=beta_pdf", "dataset.val_size=0", "dataset.num_curves=200")
    data = build.data(config)
    torch.manual_seed(0)
    uniform, grid = Uniform(0, 5), torch.linspace(0.01, 0.99, 100)
    for curve, a_stored in zip(data.train.x, data.train.parameters["a"], strict=True):
        a, b = uniform.sample(), uniform.sample()
        assert a == a_stored
        torch.testing.assert_close(curve, Beta(a, b).log_prob(grid), rtol=1e-5, atol=1e-4)


def test_test_curves_have_their_own_seed_and_sizes_hold(make_config):
    data = build.data(make_config("dataset=beta_pdf", "dataset.num_points=30"))
    assert (len(data.train), len(data.val), len(data.test)) == (4500, 500, 1000)
    assert data.shape == (30,)
    assert not data.train.x[:500].equal(data.test.x[:500])
    assert (
        build.data(make_config("dataset=beta_pdf", "seed=5"))
        .test.x[0]
        .equal(build.data(make_config("dataset=beta_pdf", "seed=6")).test.x[0])
    )


def test_density_is_the_exponential_of_the_log_density(make_config):
    log = build.data(make_config("dataset=beta_pdf"))
    density = build.data(make_config("dataset=beta_pdf", "dataset.quantity=density"))
    assert density.train.x.equal(log.train.x.exp())
    assert log.curves.logarithms
    assert not density.curves.logarithms
