import torch

from vae_cli import build


def corrupt(config, x: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return build.corruption(config)(x, torch.Generator().manual_seed(seed))


def test_no_corruption_is_the_input_itself(make_config):
    x = torch.rand(3, 4)
    assert corrupt(make_config(), x) is x


def test_gaussian_noise(make_config):
    x = torch.rand(200, 100)
    noise = corrupt(make_config("corruption=gaussian", "corruption.sigma=0.2"), x) - x
    assert abs(noise.mean()) < 0.01
    assert abs(noise.std() - 0.2) < 0.01


def test_masking_sets_a_share_to_zero(make_config):
    x = torch.rand(200, 100) + 0.1
    config = make_config("corruption=masking", "corruption.probability=0.3")
    masked = corrupt(config, x)
    assert abs(masked.eq(0).float().mean() - 0.3) < 0.02
    assert (masked.eq(x) | masked.eq(0)).all()
    assert not masked.equal(corrupt(config, x, seed=1))
