"""The arithmetic, files and contenders of the benchmarks. No test asserts a time."""

import json
import math
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import (
    beta_curves,
    environment,
    faults,
    ours,
    processes,
    speed,
    startup,
    sweep,
    table,
)
from benchmarks.contenders import floor, tutorial
from benchmarks.contenders.task import Task
from benchmarks.measurement import Measured, gathered, overheads, ratios, spread
from benchmarks.networks import Network
from benchmarks.workloads import CONV, CONV64, MLP, Work, works
from vae_cli.config.settings import Config
from vae_cli.runs import checkpoint

SIZES = {"widths": (8,), "latent_dim": 2, "batch_size": 4, "examples": 10, "test_examples": 6}
TINY = replace(MLP, data="synthetic", **SIZES)
TINY_CONV = replace(TINY, model="conv", widths=(4, 6), shape=(3, 9, 9))


def seconds(*values: float, whole: float | None = None) -> Measured:
    return Measured(100, list(values), [] if whole is None else [whole], -1.5, 2.0, 300.0)


def test_every_work_belongs_to_a_part() -> None:
    assert {work.name for work in works(quick=False)} <= set(speed.PARTS)
    assert {work.name for work in works(quick=True)} <= set(speed.QUICK_PARTS) <= set(speed.PARTS)
    assert speed.parser().parse_args(["--only", "mlp", "--only", "beta"]).only == ["mlp", "beta"]


def test_the_parent_process_loads_no_torch() -> None:
    code = "import sys; from benchmarks import speed; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=environment.ROOT, check=True)


def test_contenders_alternate(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def one(name: str, asked: Task) -> Measured:
        order.append(f"{name} {asked.seed}")
        if name == "ours bf16":
            raise processes.Failed("no bf16 here")
        return seconds(1.0)

    monkeypatch.setattr(speed, "one", one)
    monkeypatch.setattr(speed, "find_spec", lambda name: None)  # nothing is installed
    failures: list[str] = []
    work = replace(TINY, contenders=("ours", "ours bf16", "pythae", "floor"), rounds=2)
    rounds = speed.alternate(Task(work, "nowhere"), None, failures)
    assert order == ["ours 0", "ours bf16 0", "floor 0", "ours 1", "ours bf16 1"]
    assert [set(one) for one in rounds] == [{"ours", "floor"}, {"ours"}]
    assert len(failures) == 2


def test_medians_and_ratios_within_rounds() -> None:
    assert spread([3.0, 1.0, 10.0]).text(".1f") == "3.0 (1.0–10.0)"
    slow = {"ours": seconds(2.0), "tutorial": seconds(6.0)}
    fast = {"ours": seconds(1.0), "tutorial": seconds(4.0)}
    rounds = [slow, fast, {"ours": seconds(1.0)}]
    assert ratios(rounds, "ours", "tutorial") == [3.0, 4.0]
    assert gathered(rounds, "tutorial", "epoch_seconds") == [6.0, 4.0]
    quiet = [{"ours": seconds(1.0, whole=1.25), "ours, quiet": seconds(1.0)}]
    assert overheads(quiet) == pytest.approx([0.2])


def test_tables_hold_ratios_and_quality() -> None:
    rounds = [{"ours": seconds(1.0, whole=1.25), "tutorial": seconds(4.0), "floor": seconds(0.5)}]
    cells = {row[0]: row[1:] for row in table.rows(MLP, rounds)}
    assert cells["tutorial"] == ["25", "4.000", "", "4.00", "", "300", "-1.50", "2.00"]
    assert cells["ours"][2:4] == ["1.250", ""]
    assert "500,000" in table.growth((replace(TINY, examples=100, batch_size=50),), [rounds])
    assert startup.summarised([3.0, 6.0, 4.0], [2.0, 3.0, 2.0])["ratio"]["median"] == 2.0


def test_beta_curves_count_the_mean_over_seeds() -> None:
    fast = {"totals": [40e3, 30e3], "pass_seconds": [1.0, 1.0], "whole_seconds": [2.0, 4.0]}
    slow = {"totals": [40e3, 36e3], "pass_seconds": [1.0, 3.0], "whole_seconds": [2.0, 6.0]}
    loops = [Measured(1_000, [4.0]), Measured(1_000, [8.0])]
    result = beta_curves.summarised([fast, slow], loops)
    assert result["mean_total"] == 33e3
    assert result["reached_pass_seconds"] == 3.0  # 1 + (1 + 3) / 2
    assert result["ratio"]["low"] == 2000 / 2
    assert "3.0 s of training" in table.beta(result)


def test_results_are_dated_and_described_without_folders_of_this_machine(tmp_path: Path) -> None:
    about = environment.describe()
    path = environment.write("speed", {"environment": about}, tmp_path / "results")
    assert json.loads(path.read_text())["environment"] == about
    assert about["versions"]["torch"] in environment.in_a_line(about)
    assert environment.command(["--data-dir", "/x", "--only", "mlp"]) == "python --only mlp"


@pytest.mark.parametrize("work", [TINY, TINY_CONV])
def test_the_tutorial_trains_on_every_example(work: Work) -> None:
    result = tutorial.run(Task(work, "nowhere"))
    about = math.prod(work.shape) * math.log(2)  # untrained logits are near 0
    assert result.train_loss == pytest.approx(about, rel=0.5)
    assert result.test_elbo == pytest.approx(-about, rel=0.5)


@torch.no_grad()
def test_the_floor_computes_and_counts_the_products_of_a_step() -> None:
    left, right = torch.randn(6, 5).T, torch.randn(7, 6)
    for kernel in floor._matmuls(left, right).values():
        torch.testing.assert_close(kernel(), left @ right.T)
    products = floor.products(Task(MLP, "nowhere"), torch.device("cpu"), torch.float32)
    forward = 128 * (784 * 400 + 400 * 40 + 20 * 400 + 400 * 784)
    without = 128 * 784 * 400  # the first layer has no input gradient
    assert sum(product.flops for product in products) == 2 * (3 * forward - without)


@pytest.mark.parametrize("work", [MLP, CONV, CONV64], ids=lambda work: work.name)
def test_the_networks_have_our_shapes(work: Work, make_config: Callable[..., Config]) -> None:
    config = make_config(*ours._model(work))
    model = config.model.build(work.shape, 2 * work.latent_dim)
    assert [p.shape for p in Network(work).parameters()] == [p.shape for p in model.parameters()]


def test_ours_is_the_real_command() -> None:
    task = Task(TINY, "nowhere", seed=3)
    assert Task.from_json(task.to_json()) == task
    result = ours.run(task)
    assert len(result.epoch_seconds) == len(result.whole_seconds) == 1


def test_a_process_says_why_it_failed_and_can_be_stopped() -> None:
    with pytest.raises(processes.Failed, match=r"exit code 3(?s:.*)the reason"):
        processes.run(["-c", "print('the reason'); raise SystemExit(3)"])
    assert processes.run(["-c", "import time; time.sleep(60)"], watch=lambda: True).seconds < 50


def test_damage_is_noticed_where_it_matters(tmp_path: Path) -> None:
    weight, path, noticed = torch.rand(999), tmp_path / "last.ckpt", 0
    for seed in range(40):
        checkpoint.save(path, {"weight": weight})
        faults.damage(path, random.Random(seed))
        try:
            assert checkpoint.load(path)["weight"].equal(weight)
        except checkpoint.Damaged:
            noticed += 1
    assert noticed > 30


def test_sweeps_are_timed_in_alternation_and_must_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sweep.works(True, "nowhere", tmp_path)["mnist"][0] == "dataset=arrays"
    calls: list[list[str]] = []

    def timed(settings: list[str], place: Path) -> sweep.Timed:
        calls.append(settings)
        return sweep.Timed(8, 30.0, 20.0, -1.0 if len(calls) < 3 else -2.0)

    monkeypatch.setattr(sweep, "WAYS", {"alone": (), "drawn": ("figures=all",)})
    monkeypatch.setattr(sweep, "sweep", timed)
    failures: list[str] = []
    found = sweep.alternate(["beta=1"], 1, tmp_path, failures)
    assert failures == []
    assert "| drawn | 16            | 30.0     | 20.0  | -1.0000" in sweep.tabulated(found)
    calls.clear()
    sweep.alternate(["beta=1"], 2, tmp_path, failures)
    assert calls == [["beta=1"], ["beta=1", "figures=all"]] * 2
    assert "different numbers: [-2.0, -1.0]" in failures[0]
