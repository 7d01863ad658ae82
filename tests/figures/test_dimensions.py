"""Code histograms and KL bars."""

import pytest
import torch
from matplotlib.colors import to_hex

from vae_cli.figures import code_histograms, kl_bars, style


def test_histogram_and_prior_are_both_densities():
    (ax,) = code_histograms(torch.randn(4000, 1)).axes
    heights, edges, _ = ax.patches[0].get_data()
    assert (heights * (edges[1:] - edges[:-1])).sum() == pytest.approx(1, abs=1e-6)
    (prior,) = ax.get_lines()
    x, y = (torch.tensor(v) for v in prior.get_data())
    assert torch.allclose(y, torch.distributions.Normal(0, 1).log_prob(x).exp())


def test_aggregate_posterior_is_the_mixture():
    means = torch.tensor([[-1.0], [1.0]])
    figure = code_histograms(means, torch.full((2, 1), 0.5))
    _, mixture = figure.axes[0].get_lines()
    x, y = (torch.tensor(v) for v in mixture.get_data())
    parts = torch.distributions.Normal(means.double(), 0.5).log_prob(x).exp()
    assert torch.allclose(y, parts.mean(dim=0))
    legend = [t.get_text() for t in figure.legends[0].get_texts()]
    assert legend == ["posterior means", "N(0, 1)", "aggregate posterior"]


def test_first_sixteen_dimensions_in_caller_order():
    figure = code_histograms(torch.randn(50, 20), dims=list(range(19, -1, -1)))
    assert [ax.get_title() for ax in figure.axes] == [f"z{d}" for d in range(20, 4, -1)]
    assert figure.legends[0].get_title().get_text() == "first 16 of 20 dimensions"


def test_collapsed_and_wide_codes_stay_legible():
    means = torch.stack([torch.zeros(500), 40 * torch.randn(500)], dim=1)
    narrow, wide = code_histograms(means).axes
    assert narrow.get_ylim()[1] == pytest.approx(1.2)
    assert wide.get_ylim()[1] < 0.1
    assert wide.get_xlim()[1] > 40


def test_broken_codes_are_ignored():
    means = torch.randn(100, 3)
    means[0, 0] = float("nan")
    means[:, 1] = float("inf")
    stddevs = torch.ones(100, 3)
    stddevs[:, 2] = float("nan")
    figure = code_histograms(means, stddevs)
    assert [len(ax.patches) for ax in figure.axes] == [1, 0, 1]


def test_bars_keep_their_order_and_mark_active_units():
    kl = torch.tensor([3.0, 0.01, 1.0])
    figure = kl_bars(kl, kl > 0.1, dims=[7, 0, 2])
    (ax,) = figure.axes
    assert [bar.get_height() for bar in ax.patches] == pytest.approx(kl.tolist())
    colours = [to_hex(bar.get_facecolor()) for bar in ax.patches]
    assert colours == [style.PALETTE[0], style.PALE, style.PALETTE[0]]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["z8", "z1", "z3"]
    assert figure.legends[0].get_texts()[0].get_text() == "active units: 2 of 3"
    assert ax.get_ylabel() == "KL [nats per example]"


def test_many_bars_have_fewer_names():
    (ax,) = kl_bars(torch.rand(128), torch.rand(128) > 0.5).axes
    assert len(ax.patches) == 128
    assert len(ax.get_xticks()) == 32


def test_broken_kl_is_an_empty_place():
    kl = torch.tensor([1.0, float("nan"), float("inf")])
    (ax,) = kl_bars(kl, kl > 0.1).axes
    assert [bar.get_height() for bar in ax.patches] == [1, 0, 0]


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="active"):
        kl_bars(torch.rand(3), torch.rand(2) > 0)
    with pytest.raises(ValueError, match="dims"):
        code_histograms(torch.rand(5, 3), dims=[0])
