import numpy as np
import pytest
import torch

from vae_cli.config.datasets import Binarize
from vae_cli.console import UserError
from vae_cli.data.dataset import Data, Split, derive, epoch_order, fingerprint
from vae_cli.data.splits import carve, carve_validation

CPU = torch.device("cpu")


def numbered(count: int) -> Split:
    x = torch.arange(count, dtype=torch.float32)[:, None]
    return Split(x, labels=torch.arange(count), parameters={"a": x[:, 0]})


def test_a_part_is_carved_off_without_loss_and_always_equal():
    rest, part = carve(numbered(50), 10, "test_size")
    assert sorted(rest.x[:, 0].tolist() + part.x[:, 0].tolist()) == list(range(50))
    assert part.labels.tolist() == [8, 13, 16, 17, 18, 31, 36, 37, 38, 48]  # of earlier versions
    assert part.labels.equal(part.parameters["a"].long())
    shuffled = carve(numbered(50), 10, "test_size", shuffled=True)[1]
    assert shuffled.labels.sort().values.equal(part.labels)
    assert carve_validation(numbered(5), 0)[1] is None


def test_sizes_of_null_are_a_tenth_within_bounds_and_a_part_is_smaller_than_the_whole():
    for count, expected in ((3, 1), (99, 9), (100_000, 10_000), (300_000, 10_000)):
        rest, val = carve_validation(numbered(count), None)
        assert (len(rest), len(val)) == (count - expected, expected)
    with pytest.raises(UserError, match=r"dataset\.val_size=5: .*the 5 examples"):
        carve_validation(numbered(5), 5)


@pytest.mark.parametrize("white", [255, 1])
def test_prepare(white: int):
    expected = torch.randint(0, 256, (4000, 1, 2, 2)) / 255
    split = Split((expected * 255).round().byte() if white == 255 else expected)
    raw, source = split.head(4000), torch.Generator()

    def data(binarize: Binarize) -> Data:
        return Data("x", split, None, split, binarize=binarize)

    assert data("none").prepare(raw, source).equal(expected)
    assert data("threshold").prepare(raw, source).equal((expected >= 0.5).float())
    first, second = (data("dynamic").prepare(raw, source) for _ in range(2))
    assert set(first.unique().tolist()) == {0, 1}
    assert not first.equal(second)  # drawn anew at every look
    assert abs(first.mean() - expected.mean()) < 0.02
    assert data("none").value_range() == (expected.min().item(), expected.max().item())


def test_the_mean_example_is_that_of_all_as_a_network_sees_them():
    grey = torch.randint(0, 256, (250, 1, 2, 2), dtype=torch.uint8)
    share = grey.double() / 255
    expected = {"none": share, "dynamic": share, "threshold": (share >= 0.5).double()}
    for binarize, x in expected.items():
        mean, examples = Data("x", Split(grey), None, Split(grey[:2]), binarize=binarize).mean()
        torch.testing.assert_close(mean, x.mean(0), rtol=1e-6, atol=1e-7)
        assert examples == 250
    curves = 1e4 + torch.randn(3000, 5)
    mean, examples = Data("x", Split(curves), None, Split(curves)).mean()
    torch.testing.assert_close(mean, curves.double().mean(0), rtol=1e-12, atol=0)
    assert examples == 3000


def test_what_is_measured_is_drawn_once_whatever_the_batches_the_order_and_the_other_examples():
    grey = torch.full((600, 1, 4, 4), 0.3)
    grey[0], grey[1] = 0, 1
    data = Data("x", Split(grey), None, Split((grey * 255).round().byte()), binarize="dynamic")
    x, fixed = data.fixed(data.test, 7).x, data.fixed(data.test, 7)
    assert fixed is data.fixed(data.test, 7)  # kept: validation runs after every epoch
    assert (x[0] == 0).all()
    assert (x[1] == 255).all()
    assert float(x[2:].eq(255).float().mean()) == pytest.approx(76.5 / 255, abs=0.02)
    assert data.prepare(x, torch.Generator()).equal(x / 255)  # drawing again changes nothing
    # example 5, by what the docstring says of it
    source = torch.Generator().manual_seed(derive(7, "binarisation", "test", 5))
    assert x[5].equal((torch.rand(1, 4, 4, generator=source) < 76 / 255).byte() * 255)
    few = Data("x", data.train, None, data.test.take(torch.arange(9)), binarize="dynamic")
    assert few.fixed(few.test, 7).x.equal(x[:9])
    assert not data.fixed(data.test, 8).x.equal(x)
    assert not data.fixed(data.train, 7).x.equal(x)  # float values, another split
    plain = Data("x", data.train, None, data.test)
    assert plain.fixed(plain.test, 7) is plain.test


def test_batches_head_take_and_to_of_a_split_in_memory():
    split = numbered(6)
    assert [x[:, 0].tolist() for x in split.batches(None, 4)] == [[0, 1, 2, 3], [4, 5]]
    order = torch.tensor([5, 0, 0])
    assert [x[:, 0].tolist() for x in split.batches(order, 2)] == [[5, 0], [0]]
    assert split.head(2)[:, 0].tolist() == [0, 1]
    assert split.take(order).labels.tolist() == [5, 0, 0]
    moved = Data("x", split, None, Split(split.x)).to(CPU)
    assert moved.train.parameters["a"].equal(split.parameters["a"])
    assert moved.val is moved.test.labels is None


def test_a_fingerprint_is_of_values_types_and_shapes():
    x = np.arange(6.0)
    others = [x, x.reshape(2, 3), x.astype(np.float32), x + 1e-12, x.astype(str), x == 1, x[:0]]
    digests = [fingerprint(other) for other in others]
    assert len(set(digests)) == len(others)
    assert fingerprint(torch.from_numpy(x)) == fingerprint(np.arange(12.0)[::2] / 2) == digests[0]
    assert fingerprint("a", x) != fingerprint(x, "a")


def test_randomness_is_that_of_earlier_versions():
    assert derive(0, "noise", 1234) == 6987728443330040088
    assert epoch_order(CPU, 1, 2, 8).tolist() == [7, 5, 4, 2, 1, 6, 3, 0]
