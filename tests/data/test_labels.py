"""Labels are names: any value, one for each example."""

import numpy as np
import pytest
import torch

from vae_cli.data.dataset import Data, Split
from vae_cli.data.labels import facts_of, of_each_class


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (np.array([1, -1, 10, 2]), ("-1", "1", "2", "10")),
        (np.array([1.0, 1e30, -0.5, np.inf]), ("-0.5", "1", "1e+30", "inf")),
        (np.array([2.0, np.nan, np.nan, -np.inf]), ("-inf", "2", "nan")),
        (np.array([2**63, 2**64 - 1, 0], np.uint64), ("0", "9223372036854775808", f"{2**64 - 1}")),
        (np.array([0.1, 2], np.float32), ("0.1", "2")),
        (np.array([True, False]), ("False", "True")),
        (np.array(["v2.0", "b a", "ä"]), ("b a", "v2.0", "ä")),
        (np.array(["é".encode(), b"a"]), ("a", "é")),
    ],
)
def test_names_are_sorted_and_written_as_people_do(labels, names):
    (fact,), classes = facts_of([labels], "y")
    assert classes == names
    indices = fact["labels"].tolist()
    for name, value in zip((names[index] for index in indices), labels, strict=True):
        if labels.dtype.kind in "iuf":
            np.testing.assert_equal(labels.dtype.type(name), value)
        else:
            assert name == (value.decode() if isinstance(value, bytes) else str(value))


def test_names_are_those_of_all_parts():
    (train, test, none), classes = facts_of([np.array([3.0, 1.0]), np.array([2, 3]), None], "y")
    assert classes == ("1", "2", "3")
    assert (train["labels"].tolist(), test["labels"].tolist(), none) == ([2, 0], [1, 2], {})


def test_measurements_are_no_classes():
    prices = np.linspace(0, 1, 60)
    facts, classes = facts_of([prices, prices[:9]], "price")
    assert classes == ()
    assert facts[0]["parameters"]["price"].tolist() == prices.astype(np.float32).tolist()
    assert len(facts[1]["parameters"]["price"]) == 9
    assert facts_of([np.arange(60)], "id")[1] == ()  # each another
    assert len(facts_of([np.arange(60) // 3], "class")[1]) == 20
    assert len(facts_of([np.arange(300) % 50], "class")[1]) == 50


def test_examples_of_each_class_come_in_turn():
    def numbers(labels, count):
        given = None if labels is None else torch.tensor(labels)
        split = Split(torch.zeros(5, 3), given)
        return of_each_class(Data("name", split, None, split), count).tolist()

    assert numbers([2, 2, 2, 0, 1], 9) == [3, 4, 0, 1, 2]
    assert numbers([2, 2, 2, 0, 1], 2) == [3, 4]
    assert numbers(None, 2) == [0, 1]
