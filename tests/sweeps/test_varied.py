"""Settings side by side: what varies and says something, what is common."""

from pathlib import Path

from vae_cli.runs.saved import SavedRun
from vae_cli.sweeps.plan import given_keys
from vae_cli.sweeps.varied import cells, text, varied

BASE = {"beta": 1.0, "seed": 0, "device": "auto", "model.name": "ae", "model.size": "[8]",
        "dataset.name": "a", "dataset.suggested.size": 1, "optimizer.lr": 0.1}  # fmt: skip


def runs(*changes):
    return [BASE | change for change in changes]


def test_what_differs_comes_in_the_order_of_the_command_line():
    jobs = runs({"beta": 1, "seed": 1}, {"beta": 2, "seed": 2}, {"optimizer.lr": 0.2})
    assert varied(jobs) == ["beta", "seed", "optimizer.lr"]
    given = given_keys(["optimizer.lr=0.1,0.2", "seed=0,1,2", "+beta=1,2"])
    assert varied(jobs, given) == ["optimizer.lr", "seed", "beta"]
    assert varied([{"x": 1}, {}]) == []  # a setting that a run lacks says nothing
    assert varied(runs({"beta": 1}, {"beta": 1.0})) == []


def test_what_follows_from_a_choice_or_says_how_is_left_out_unless_it_was_given():
    jobs = runs({}, {"dataset.name": "b", "model.size": "[9]", "dataset.suggested.size": 2})
    assert varied(jobs) == ["dataset.name"]
    given = given_keys(["dataset=a,b", "model.size=[8],[9]"])
    assert varied(jobs, given) == ["dataset.name", "model.size"]
    # one choice, two sizes: the choice does not decide the size
    assert varied([*jobs, BASE | {"model.size": "[7]"}]) == ["model.size", "dataset.name"]
    jobs = runs({"experiment": "x"}, {"experiment": "y", "beta": 4, "model.name": "b"})
    assert varied(jobs) == ["experiment"]
    assert varied(runs({}, {"device": "cuda"})) == []
    assert varied(runs({}, {"device": "cuda"}), ["device"]) == ["device"]


def test_values_are_shown_as_they_are_typed():
    settings = {"a": {"x": True, "y": None, "z": [4, 2]}, "b": 0.5, "c": 3}
    flat = {"a.x": "true", "a.y": "null", "a.z": "[4,2]", "b": 0.5, "c": 3}
    run = SavedRun(Path(), settings, {}, 0)
    assert cells(run, ["experiment=vae_2d", "b=3"]) == flat | {"experiment": "vae_2d"}
    shown = [text(value) for value in (0.5, 1.0, 1e-5, float("nan"), "[4]")]
    assert shown == ["0.5", "1", "1e-05", "", "[4]"]
