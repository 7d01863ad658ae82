"""The benchmark's own arithmetic, files and contenders. No time is asserted anywhere."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import beta_curves, environment, ours, processes, speed, startup, table
from benchmarks.contenders import beta_loop, floor, tutorial
from benchmarks.contenders.task import Task
from benchmarks.measurement import Measured, gathered, overheads, ratios, spread
from benchmarks.networks import Network
from benchmarks.workloads import CONV, CONV64, MLP, Work, growth, works
from vae_cli import build
from vae_cli.config import Config

TINY = replace(
    MLP, widths=(8,), latent_dim=2, batch_size=4, examples=10, test_examples=6, data="synthetic"
)
TINY_CONV = replace(TINY, model="conv", widths=(4, 6), shape=(3, 9, 9))


def task(work: Work = TINY) -> Task:
    return Task(work, data_dir="nowhere")


def seconds(*values: float, whole: float | None = None) -> Measured:
    return Measured(100, list(values), [] if whole is None else [whole], -1.5, 2.0, 300.0)


# ------------------------------------------------------------------------------------ command line


def test_parser_reads_its_options() -> None:
    line = ["--quick", "--only", "mlp", "--only", "beta", "--rounds", "3", "--threads", "2"]
    found = speed.parser().parse_args([*line, "--device", "cuda:1"])
    assert (found.quick, found.only, found.rounds, found.threads) == (True, ["mlp", "beta"], 3, 2)
    assert found.device == "cuda:1"
    assert found.output == environment.RESULTS


@pytest.mark.parametrize("line", [["--rounds", "0"], ["--only", "nothing"], ["--threads", "-1"]])
def test_parser_refuses(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        speed.parser().parse_args(line)
    assert line[0] in capsys.readouterr().err


def test_every_part_is_measured_somewhere() -> None:
    assert {work.name for work in works(quick=False)} <= set(speed.PARTS)
    assert {work.name for work in works(quick=True)} <= set(speed.QUICK_PARTS) <= set(speed.PARTS)
    assert len({work.name for work in growth()}) == len(growth())


def test_parent_loads_no_torch() -> None:
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
    work = replace(TINY, contenders=("ours", "ours bf16", "floor"), rounds=3)
    failures: list[str] = []
    found = speed.alternate(task(work), None, failures)
    later = ["ours 1", "ours bf16 1", "ours 2", "ours bf16 2"]
    assert order == ["ours 0", "ours bf16 0", "floor 0", *later]  # the floor in one round only
    assert [set(one) for one in found] == [{"ours", "floor"}, {"ours"}, {"ours"}]
    assert len(failures) == 3
    order.clear()
    speed.alternate(task(work), 4, [])
    assert order.count("floor 3") == 1  # all of it, where the rounds are asked for


def test_a_peer_that_is_not_installed_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(speed, "find_spec", lambda name: None)
    monkeypatch.setattr(speed, "one", lambda name, asked: seconds(1.0))
    found = speed.alternate(task(replace(TINY, rounds=1)), None, [])
    assert set(found[0]) == set(TINY.contenders) - {"pythae", "jax"}
    assert "pythae is not installed" in capsys.readouterr().out


# -------------------------------------------------------------------------------------- arithmetic


def test_spread() -> None:
    found = spread([3.0, 1.0, 10.0])
    assert (found.median, found.low, found.high) == (3.0, 1.0, 10.0)
    assert found.text(".1f") == "3.0 (1.0–10.0)"
    assert spread([2.0]).text(".1f") == "2.0"
    with pytest.raises(ValueError, match="no measurements"):
        spread([])


def test_ratios_are_taken_within_a_round() -> None:
    slow_machine = {"ours": seconds(2.0), "tutorial": seconds(6.0)}
    fast_machine = {"ours": seconds(1.0), "tutorial": seconds(4.0)}
    without = {"ours": seconds(1.0)}
    rounds = [slow_machine, fast_machine, without]
    assert ratios(rounds, "ours", "tutorial") == pytest.approx([3.0, 4.0])
    assert gathered(rounds, "tutorial", "epoch_seconds") == [6.0, 4.0]


def test_examples_per_second_is_of_the_median_epoch() -> None:
    assert seconds(1.0, 2.0, 50.0).examples_per_second == 50.0


def test_overhead_is_what_a_quiet_pass_does_not_need() -> None:
    rounds = [{"ours": seconds(1.0, whole=1.25), "ours, quiet": seconds(1.0)}]
    assert overheads(rounds) == pytest.approx([0.2])


def test_table_has_ratios_and_quality() -> None:
    rounds = [{"ours": seconds(1.0, whole=1.25), "tutorial": seconds(4.0), "floor": seconds(0.5)}]
    cells = {row[0]: row[1:] for row in table.rows(MLP, rounds)}
    assert set(cells) == {"ours", "tutorial", "floor"}
    assert cells["tutorial"] == ["25", "4.000", "", "4.00", "", "300", "-1.50", "2.00"]
    assert cells["ours"][2:4] == ["1.250", ""]
    assert "mlp" in table.comparison(MLP, rounds)


def test_growth_table() -> None:
    work = replace(growth()[0], examples=100, batch_size=50)
    text = table.growth((work,), [[{"ours": seconds(1.0), "floor": seconds(0.5)}]])
    assert "500,000" in text
    assert "2.00" in text


def test_beta_curves_count_the_mean_over_seeds() -> None:
    fast = {"totals": [40e3, 30e3], "pass_seconds": [1.0, 1.0], "whole_seconds": [2.0, 4.0]}
    slow = {"totals": [40e3, 36e3], "pass_seconds": [1.0, 3.0], "whole_seconds": [2.0, 6.0]}
    loops = [Measured(1_000, [4.0]), Measured(1_000, [8.0])]
    found = beta_curves.summarised([fast, slow], loops)
    assert found["mean_total"] == 33e3
    assert found["reached_pass_seconds"] == 3.0  # 1 + (1 + 3) / 2
    assert found["reached_whole_seconds"] == 5.0
    assert found["ratio"]["low"] == 2000 / 2
    assert found["final_totals"] == [30e3, 36e3]
    assert beta_curves.reached(slow, [1.0, 2.0]) is None
    assert "3.0 s of training" in table.beta(found)


def test_startup_ratio() -> None:
    found = startup.summarised([3.0, 6.0, 4.0], [2.0, 3.0, 2.0])
    assert found["ratio"]["median"] == 2.0
    assert "4.00 s from Enter" in table.startup(found)


# ------------------------------------------------------------------------------------------- files


def test_results_are_dated_and_described(tmp_path: Path) -> None:
    about = environment.describe()
    path = environment.write("speed", {"environment": about}, tmp_path / "results")
    assert path.parent == tmp_path / "results"
    assert path.name.endswith("-speed.json")
    kept = json.loads(path.read_text())["environment"]
    assert kept == about
    assert kept["cpu"]["cores"] >= 1
    assert kept["versions"]["torch"].startswith("2.")
    assert "commit" in kept
    assert kept["versions"]["torch"] in environment.in_a_line(about)


def test_a_described_command_names_no_folder_of_this_machine() -> None:
    line = ["-m", "benchmarks.speed", "--data-dir", "/x/y", "--only", "mlp", "--output=/z"]
    assert environment.command(line) == "python -m benchmarks.speed --only mlp"


# -------------------------------------------------------------------------------------- contenders


@pytest.mark.parametrize("work", [TINY, TINY_CONV])
def test_tutorial_trains_on_every_example(work: Work) -> None:
    found = tutorial.run(task(work))
    assert found.examples == 10
    assert len(found.epoch_seconds) == work.epochs - 1
    assert found.train_loss is not None
    assert found.test_elbo is not None
    # untrained logits are near 0, so every pixel costs about log 2
    about = math.prod(work.shape) * math.log(2)
    assert 0.5 * about < found.train_loss < 1.5 * about
    assert -1.5 * about < found.test_elbo < -0.5 * about


def test_tutorial_step_lowers_its_loss() -> None:
    torch.manual_seed(0)
    network = Network(TINY)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    x = torch.rand(1, *TINY.shape).round().expand(4, -1, -1, -1)
    losses = [tutorial.step(network, optimizer, x) for _ in range(40)]
    assert losses[-1] < 0.7 * losses[0]


def test_jax_compiles_before_what_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("jax")
    pytest.importorskip("optax")
    from benchmarks.contenders import jax_scan

    made = []
    build_epoch = jax_scan.epoch_function
    monkeypatch.setattr(
        jax_scan, "epoch_function", lambda *a: made.append(build_epoch(*a)) or made[-1]
    )
    found = jax_scan.run(task(replace(TINY, epochs=3)))
    assert made[0]._cache_size() == 1  # the epochs that are timed ran what the first compiled
    assert found.test_elbo is not None
    assert len(found.epoch_seconds) == 2


def test_beta_loop_step() -> None:
    torch.manual_seed(0)
    network = beta_loop.Network()
    before = network.hidden.weight.clone()
    optimizer = torch.optim.Adam(network.parameters(), lr=beta_loop.LR)
    total = beta_loop.step(network, optimizer, torch.ones(beta_loop.POINTS))
    assert math.isfinite(total)
    assert not torch.equal(before, network.hidden.weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_floor_kernels_compute_the_same_product(dtype: torch.dtype) -> None:
    left, right = torch.randn(6, 5).to(dtype).T, torch.randn(7, 6).to(dtype)
    kernels = floor._matmuls(left, right)
    plain = left.float() @ right.float().T
    for name, kernel in kernels.items():
        found = kernel()
        assert isinstance(found, torch.Tensor), name
        torch.testing.assert_close(found.float(), plain, rtol=0.02, atol=0.05, msg=name)


@torch.no_grad()
def test_floor_counts_the_products_of_a_step() -> None:
    found = floor.products(task(MLP), torch.device("cpu"), torch.float32)
    forward = 128 * (784 * 400 + 400 * 40 + 20 * 400 + 400 * 784)
    backward = 2 * forward - 128 * 784 * 400  # no input gradient for the first layer
    assert sum(p.flops for p in found) == 2 * (forward + backward)
    assert len(found) == 3 * 4 - 1


def test_floor_runs_on_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(floor, "TRIAL_SECONDS", 0.0)
    found = floor.run(task(TINY_CONV))
    # two convolutions, two back, the last one: forward and gradients; two linear layers: three each
    assert len(found.details["gflops_by_kernel"]) == 2 * 5 + 3 * 2
    assert found.details["gflop_a_step"] > 0


@pytest.mark.parametrize("work", [MLP, CONV, CONV64], ids=lambda work: work.name)
def test_networks_have_the_shapes_of_ours(work: Work, make_config: Callable[..., Config]) -> None:
    config = make_config(*ours._model(work))
    model = build.target(config.model)(config.model, work.shape)
    shapes = [p.shape for p in model.parameters()]
    assert [p.shape for p in Network(work).parameters()] == shapes


def test_a_task_survives_its_journey() -> None:
    sent = Task(CONV, "there", "cuda", "bf16", seed=3, limit=7)
    assert Task.from_json(sent.to_json()) == sent


def test_ours_is_the_real_command() -> None:
    found = ours.run(task())
    assert found.examples == 10
    assert len(found.epoch_seconds) == len(found.whole_seconds) == 1
    assert found.test_elbo is not None
    assert found.peak_memory_mib is not None


def test_a_failed_process_says_why() -> None:
    with pytest.raises(processes.Failed, match="exit code 3") as failure:
        processes.run(["-c", "print('the reason'); raise SystemExit(3)"])
    assert "the reason" in str(failure.value)
    with pytest.raises(processes.Failed, match="printed no result"):
        processes.result(processes.run(["-c", "print('nothing')"]))


def test_a_process_is_stopped_when_it_has_shown_enough() -> None:
    ended = processes.run(["-c", "import time; time.sleep(60)"], watch=lambda: True)
    assert ended.seconds < 50
