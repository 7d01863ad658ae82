"""Scores of disentanglement on codes whose answer is known."""

import numpy as np
import pytest
from scipy.stats import entropy

from vae_cli.analysis import scores
from vae_cli.analysis.scores import Known, binned, dci, gap
from vae_cli.console import UserError

RANDOM = np.random.default_rng(0)
PLACES = [2, 0, 3, 1]  # which factor each dimension of a permuted code holds


def factors_of(count: int) -> dict[str, np.ndarray]:
    return {
        "class": RANDOM.integers(0, 3, count),
        "x": RANDOM.integers(0, 10, count) / 10,
        "y": RANDOM.integers(0, 10, count) / 10,
        "angle": RANDOM.random(count),  # more values than bins
    }


def permuted(factors: dict[str, np.ndarray]) -> np.ndarray:
    table = np.stack([*factors.values()], 1).astype(float)
    return (table - table.mean(0))[:, PLACES] * [-2, 0.5, 1, 30]


def rotated(factors: dict[str, np.ndarray]) -> np.ndarray:
    """Every dimension is a sum of all factors, each of variance 1."""
    codes = permuted(factors)
    hadamard = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2
    return codes / codes.std(0) @ hadamard


def unrelated(factors: dict[str, np.ndarray]) -> np.ndarray:
    return RANDOM.normal(size=(len(factors["x"]), 4))


def all_scores(code) -> dict[str, float]:
    train, test = (Known(code(f), f) for f in map(factors_of, (2000, 3000)))
    importance, predicted = scores.importances(train, test)
    disentanglement, completeness = dci(importance)
    return {
        "mig": gap(scores.shared_information(test, 20)),
        "sap": gap(scores.separate_scores(train, test)),
        "disentanglement": disentanglement,
        "completeness": completeness,
        "informativeness": float(predicted.mean()),
        "factor_vae": scores.factor_vae_score(train, 20, np.random.default_rng(0)),
    }


def test_a_code_that_is_the_factors_permuted_and_scaled_has_the_best_scores():
    found = all_scores(permuted)
    # a class is found without its dimension by chance, 1 / 3; correlations of others are 0
    assert found.pop("sap") == pytest.approx((3 + 2 / 3) / 4, abs=0.1)
    assert found.pop("factor_vae") == 1
    assert found == pytest.approx(dict.fromkeys(found, 1), abs=0.02)


def test_an_unrelated_code_has_the_scores_of_chance():
    found = all_scores(unrelated)
    assert found.pop("factor_vae") == pytest.approx(1 / 4, abs=0.02)
    assert found.pop("informativeness") < 0.02
    assert found == pytest.approx(dict.fromkeys(found, 0), abs=0.02)


def test_a_rotated_code_informs_and_is_not_disentangled():
    found = all_scores(rotated)
    assert found["informativeness"] > 0.9
    assert found["mig"] < 0.1
    assert found["sap"] < 0.1
    assert found["disentanglement"] < 0.5
    assert found["factor_vae"] < 0.9


def test_the_information_gap_is_that_of_a_noisy_channel():
    # x in 4 values; a dimension that is x, or with a chance of 0.4 one of the others
    x = RANDOM.integers(0, 4, 40_000)
    noisy = np.where(RANDOM.random(len(x)) < 0.4, (x + RANDOM.integers(1, 4, len(x))) % 4, x)
    found = scores.shared_information(Known(np.stack([noisy, x * 0], 1), {"x": x}), 20)
    share = 1 - entropy([0.6, *[0.4 / 3] * 3]) / np.log(4)
    assert found == pytest.approx(np.array([[share, 0]]), abs=0.005)
    assert gap(found) == pytest.approx(share, abs=0.005)
    assert gap(found[:, :1]) == pytest.approx(share, abs=0.005)  # a code of one dimension


def test_a_separate_score_is_the_variance_that_a_line_explains():
    x = RANDOM.normal(size=20_000)
    known = Known(np.stack([x + 2 * RANDOM.normal(size=len(x)), 0 * x], 1), {"x": x})
    assert scores.separate_scores(known, known) == pytest.approx(np.array([[1 / 5, 0]]), abs=0.01)


def test_disentanglement_and_completeness_are_entropies():
    # the second dimension matters for both factors, twice as much as the others
    disentanglement, completeness = dci(np.array([[0.5, 0.5, 0], [0, 0.5, 0.5]]))
    assert disentanglement == pytest.approx(0.25 * 1 + 0.5 * 0 + 0.25 * 1)
    assert completeness == pytest.approx(1 - entropy([1, 1], base=3))
    # a dimension that matters for nothing, and one for a quarter
    disentanglement, completeness = dci(np.array([[1, 0, 0], [0.25, 0, 0.75]]))
    each, weight = np.array([1 - entropy([4, 1], base=2), 1]), np.array([1.25, 0.75])
    assert disentanglement == pytest.approx(each @ weight / 2)
    assert completeness == pytest.approx((1 + 1 - entropy([1, 3], base=3)) / 2)


def test_bins_keep_few_values_apart_and_cut_many_into_equal_widths():
    assert binned(np.array([0.5, -1, 0.5, 7]), 3).tolist() == [1, 0, 1, 2]
    assert binned(np.array([0.0, 1, 2.4, 2.6, 9.9, 10]), 4).tolist() == [0, 0, 0, 1, 3, 3]


def test_the_task_scores_a_run_and_needs_known_factors(trained, evaluate, images, curves):
    small = ("dataset.positions=5", "dataset.scales=2", "dataset.rotations=1", "batch_size=10")
    run = trained("dataset=shapes", "epochs=2", "model.hidden_sizes=[20]", *small)
    done = evaluate(run, "task=disentanglement")
    found = done.json("disentanglement.json")
    assert done.notes[0] == "known factors: class, x, y, scale"  # rotation has one value
    assert {"mig", "sap", "dci_disentanglement", "dci_completeness"} <= found.keys()
    assert found == evaluate(run, "task=disentanglement").json("disentanglement.json")
    for name in ("information", "separate_scores", "importance"):
        assert np.shape(found[name]) == (4, 10)
    assert found["test_codes"] == 15
    done = evaluate(curves, "task=disentanglement", "num_codes=200")
    found = done.json("disentanglement.json")
    assert (found["factors"], found["train_codes"]) == (["a", "b"], 200)
    assert done.notes[1] == "cut into 20 bins: the codes, a, b"
    with pytest.raises(UserError, match="1 known factors that vary"):
        evaluate(images, "task=disentanglement")
