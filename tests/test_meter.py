import math

import pytest
import torch

from vae_cli.meter import Meter


def collected(*steps: tuple[float, int]) -> Meter:
    meter = Meter(4, torch.device("cpu"))
    for loss, examples in steps:
        meter.write({"loss": torch.tensor(loss), "kl": torch.tensor(2 * loss)})
        meter.count(examples)
    return meter


def test_means_weigh_examples_not_batches():
    meter = collected((1.0, 3), (5.0, 1))
    assert meter.take(meter.peek()).means() == {"loss": 2.0, "kl": 4.0}
    meter.write({"loss": torch.tensor(6.0), "kl": torch.tensor(6.0)})
    meter.count(4)
    assert meter.take(meter.peek()).means()["loss"] == 6.0
    assert meter.epoch() == {"loss": 4.0, "kl": 5.0}  # of both readings
    assert meter.epoch() == {}  # the next epoch has none yet


def test_a_reading_interrupted_by_a_checkpoint_is_the_same():
    whole = collected((1.0, 2), (2.0, 2), (4.0, 1))
    part = collected((1.0, 2), (2.0, 2))
    part.peek()
    again = Meter(4, torch.device("cpu"))
    again.load_state_dict(part.state_dict())
    again.write({"loss": torch.tensor(4.0), "kl": torch.tensor(8.0)})
    again.count(1)
    assert again.take(again.peek()) == whole.take(whole.peek())
    assert again.epoch() == whole.epoch()


def test_a_smaller_reading_still_takes_the_rows_of_a_larger_one():
    again = Meter(1, torch.device("cpu"))
    again.load_state_dict(collected((1.0, 1), (2.0, 1), (3.0, 1)).state_dict())
    again.write({"loss": torch.tensor(6.0), "kl": torch.tensor(0.0)})
    again.count(1)
    assert again.take(again.peek()).means()["loss"] == 3.0


def test_rows_that_are_not_finite_are_named_and_can_be_left_out():
    meter = collected((1.0, 1), (math.nan, 1), (3.0, 1), (math.inf, 1))
    assert meter.peek().broken() == [(1, "loss"), (3, "loss")]
    assert meter.take(meter.peek(), skipping=True).means()["loss"] == 2.0
    assert meter.skipped == 2
    assert meter.epoch()["loss"] == 2.0
    assert meter.skipped == 0


@pytest.mark.parametrize("row", [0, 3])
def test_a_row_can_be_given_on_the_device(row):
    meter = Meter(4, torch.device("cpu"))
    meter.write({"loss": torch.tensor(7.0)}, torch.tensor([row]))
    assert meter.rows[row].tolist() == [7.0]
