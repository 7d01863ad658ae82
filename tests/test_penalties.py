import pytest
import torch
from torch.autograd.functional import jacobian

from vae_cli import build
from vae_cli.objectives import Weight

WEIGHT = Weight(torch.tensor(1.0), torch.tensor(0.0))


def test_the_contractive_term_is_autograds_jacobian(make_config):
    config = make_config("penalty=contractive", "model=ae", "model.activation=tanh")
    vae = build.vae(config, (3, 2)).double()
    x = torch.randn(5, 3, 2, dtype=torch.double)
    code = vae.model.encode(x).mean
    expected = [
        jacobian(lambda one: vae.model.encoder(one.reshape(1, -1))[0], example).square().sum()
        for example in x
    ]
    found = vae.penalty(vae.model, x, code)
    # posterior() computes densities in float32
    assert found.item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-5)


def test_the_contractive_gradient_reaches_the_weights(make_config):
    # a smooth activation: relu's Jacobian jumps, which finite differences cannot follow
    vae = build.vae(make_config("penalty=contractive", "model=ae", "model.activation=tanh"), (6,))
    x = torch.randn(4, 6)
    weight = vae.model.encoder[0].weight
    term = vae.penalty(vae.model, x, vae.model.encode(x).mean)
    (gradient,) = torch.autograd.grad(term, weight)
    direction = torch.randn_like(weight)
    step = 1e-2
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight += sign * step * direction
            values.append(float(vae.penalty(vae.model, x, vae.model.encode(x).mean)))
            weight -= sign * step * direction
    expected = (values[0] - values[1]) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(expected, rel=0.02)


def test_the_sparse_term_is_the_codes_l1_norm(make_config):
    vae = build.vae(make_config("penalty=sparse", "penalty.weight=0.5", "model=ae"), (6,))
    x = torch.rand(4, 6)
    code = vae.model.encode(x).mean
    noise = torch.zeros(1, 4, 20)
    loss, metrics = vae(x, noise, WEIGHT)
    expected = code.abs().sum(1).mean()
    torch.testing.assert_close(metrics["penalty"], expected.detach())
    torch.testing.assert_close(loss, metrics["reconstruction"] + 0.5 * expected)
    assert metrics["loss"] == loss


def test_measuring_computes_the_same_loss(make_config):
    vae = build.vae(make_config("penalty=contractive", "model=ae"), (6,)).eval()
    x, noise = torch.rand(4, 6), torch.zeros(1, 4, 20)
    with torch.no_grad():
        measured = vae(x, noise, WEIGHT)
    assert not measured.loss.requires_grad
    torch.testing.assert_close(measured.loss, vae(x, noise, WEIGHT).loss.detach())


def test_without_a_penalty_there_is_no_such_metric(make_config):
    vae = build.vae(make_config(), (6,))
    assert "penalty" not in vae(torch.rand(4, 6), torch.zeros(1, 4, 20), WEIGHT).metrics
