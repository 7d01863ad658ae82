import pytest
import torch

from vae_cli import build
from vae_cli.errors import UserError


def test_digits_are_whole_and_split(make_config):
    data = build.data(make_config("dataset=digits"))
    assert (len(data.train), len(data.val), len(data.test)) == (1300, 200, 297)
    assert data.shape == (1, 8, 8)
    everything = torch.cat([data.train.x, data.val.x, data.test.x]).flatten(1)
    assert len(everything.unique(dim=0)) > 1790  # no example stands in two splits
    assert data.value_range() == (0, 1)
    assert data.test.labels.bincount().min() > 10  # every class is in the test set


def test_digits_can_be_resized(make_config):
    data = build.data(make_config("dataset=digits", "dataset.size=28"))
    assert data.shape == (1, 28, 28)
    low, high = data.value_range()
    assert low >= 0
    assert high <= 1


def test_a_test_set_beyond_the_data_is_refused(make_config):
    with pytest.raises(UserError, match=r"dataset\.test_size=1797: must be less than"):
        build.data(make_config("dataset=digits", "dataset.test_size=1797"))
