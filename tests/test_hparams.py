"""Which settings differ among runs, and which of them say something."""

import pytest

from vae_cli.hparams import given_keys, settings, varied

BASE = {"beta": 1.0, "seed": 0, "device": "auto", "model.name": "ae", "model.size": [8],
        "dataset.name": "a", "dataset.suggested.size": 1, "optimizer.lr": 0.1}  # fmt: skip


def runs(*changes):
    return [BASE | change for change in changes]


def test_what_differs_comes_in_the_order_it_was_given():
    jobs = runs({"beta": 1, "seed": 1}, {"beta": 2, "seed": 2}, {"optimizer.lr": 0.2})
    assert varied(jobs) == ["beta", "seed", "optimizer.lr"]
    given = given_keys(["optimizer.lr=0.1,0.2", "seed=0,1,2", "+beta=1,2", "-m"])
    assert varied(jobs, given) == ["optimizer.lr", "seed", "beta"]


@pytest.mark.parametrize(("one", "other"), [(1, 1.0), ([8], [8.0]), (None, None), ("a", "a")])
def test_equal_values_are_one(one, other):
    assert varied(runs({"model.size": one}, {"model.size": other})) == []


def test_true_is_not_one_and_a_missing_setting_says_nothing():
    assert varied([{"x": True}, {"x": 1}]) == ["x"]
    assert varied([{"x": 1}, {}]) == []


def test_what_follows_from_a_choice_is_left_out_unless_it_was_given():
    jobs = runs({}, {"dataset.name": "b", "model.size": [9], "dataset.suggested.size": 2})
    assert varied(jobs) == ["dataset.name"]
    assert varied(jobs, given_keys(["dataset=a,b", "model.size=[8],[9]"])) == [
        "dataset.name",
        "model.size",
    ]
    # one choice, two sizes: the choice does not decide it
    assert varied([*jobs, BASE | {"model.size": [7]}]) == ["model.size", "dataset.name"]


def test_a_preset_stands_for_all_that_it_changes():
    jobs = runs({"experiment": "x"}, {"experiment": "y", "beta": 4, "model.name": "b"})
    assert varied(jobs) == ["experiment"]


def test_where_a_run_was_done_is_left_out_unless_it_was_given():
    jobs = runs({}, {"device": "cuda"})
    assert varied(jobs) == []
    assert varied(jobs, ["device"]) == ["device"]


def test_given_keys_of_groups_are_their_names():
    assert given_keys(["model=ae,mlp_vae", "beta=1", "beta=2", "~penalty"]) == [
        "model.name",
        "beta",
        "penalty.name",
    ]


def test_settings_are_flat_and_enums_their_names(make_config):
    flat = settings(make_config("dataset=digits", "precision=bf16"))
    assert (flat["precision"], flat["dataset.name"], flat["model.latent_dim"]) == (
        "bf16",
        "digits",
        8,
    )
