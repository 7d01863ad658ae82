import pytest
import torch

from vae_cli.data.interface import Data, Split, carve_test, carve_validation
from vae_cli.errors import UserError
from vae_cli.schema.datasets import Binarize


def numbered(count: int) -> Split:
    x = torch.arange(count, dtype=torch.float32)[:, None]
    return Split(x, labels=torch.arange(count), parameters={"a": x[:, 0]})


def test_validation_is_carved_off_without_loss_and_always_the_same():
    train, val = carve_validation(numbered(50), 10, "numbers")
    assert val is not None
    assert (len(train), len(val)) == (40, 10)
    assert sorted(train.x[:, 0].tolist() + val.x[:, 0].tolist()) == list(range(50))
    assert val.labels.equal(val.x[:, 0].long())
    assert val.parameters["a"].equal(val.x[:, 0])
    assert carve_validation(numbered(50), 10, "numbers")[1].x.equal(val.x)


def test_no_validation():
    train, val = carve_validation(numbered(5), 0, "numbers")
    assert len(train) == 5
    assert val is None


def test_validation_of_everything_is_refused():
    with pytest.raises(UserError, match=r"dataset.val_size=5: must be less than the 5 training"):
        carve_validation(numbered(5), 5, "numbers")


@pytest.mark.parametrize("stored", ["uint8", "float"])
def test_prepare(stored):
    grey = torch.rand(4000, 1, 2, 2)
    raw = (grey * 255).round().byte() if stored == "uint8" else grey
    expected = raw.float() / 255 if stored == "uint8" else grey
    split = Split(raw)
    generator = torch.Generator().manual_seed(0)

    def data(binarize: Binarize) -> Data:
        return Data("x", split, None, split, binarize=binarize)

    assert data(Binarize.none).prepare(raw, generator).equal(expected)
    assert data(Binarize.threshold).prepare(raw, generator).equal((expected >= 0.5).float())
    first = data(Binarize.dynamic).prepare(raw, generator)
    second = data(Binarize.dynamic).prepare(raw, generator)
    assert set(first.unique().tolist()) == {0, 1}
    assert not first.equal(second)  # drawn anew at every look
    assert abs(first.mean() - expected.mean()) < 0.02
    assert split.x is raw
    assert data(Binarize.none).value_range() == (expected.min().item(), expected.max().item())


def test_batches_head_and_take_of_a_split_in_memory():
    split = numbered(6)
    assert [x[:, 0].tolist() for x in split.batches(None, 4)] == [[0, 1, 2, 3], [4, 5]]
    order = torch.tensor([5, 0, 0])
    assert [x[:, 0].tolist() for x in split.batches(order, 2)] == [[5, 0], [0]]
    assert split.head(2)[:, 0].tolist() == [0, 1]
    assert split.head(9).equal(split.x)
    assert split.take(order).labels.tolist() == [5, 0, 0]


def test_sizes_of_null_are_a_tenth_within_bounds():
    for count, expected in ((3, 1), (99, 9), (100_000, 10_000), (300_000, 10_000)):
        rest, val = carve_validation(numbered(count), None, "numbers")
        assert (len(rest), len(val)) == (count - expected, expected)


def test_a_test_set_is_carved_off_like_a_validation_set():
    rest, test = carve_test(numbered(50), 10, "numbers")
    assert sorted(rest.x[:, 0].tolist() + test.x[:, 0].tolist()) == list(range(50))
    with pytest.raises(UserError, match=r"dataset.test_size=50: must be less than the 50 examples"):
        carve_test(numbered(50), 50, "numbers")
