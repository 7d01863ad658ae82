"""One run shared by several processes: parts of batches, and whole runs of two processes (gloo)."""

import json
import os
import subprocess
import sys

import pytest
import torch
from PIL import Image
from torch import distributed

from vae_cli import cli
from vae_cli.distributed import ALONE, Ranks
from vae_cli.run import read_metrics, read_summary
from vae_cli.training import train

TINY = (
    "dataset=digits",
    "dataset.binarize=dynamic",
    "corruption=masking",
    "ema=0.9",
    "grad_clip=4",
    "model.hidden_sizes=[16]",
    "batch_size=101",  # parts of 51 and 50, and a last batch of 88
    "figures=none",
    "image_every=0",
)
two_processes = pytest.mark.skipif(
    sys.platform != "linux" or not (distributed.is_available() and distributed.is_gloo_available()),
    reason="needs gloo",
)


@pytest.fixture
def torchrun(tmp_path):
    """Run the real command, or a script, in two processes."""

    def run(*arguments, program=("-m", "vae_cli")):
        launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
        return subprocess.run(
            [sys.executable, *launcher, *program, *arguments],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


def numbers(folder):
    return [
        {key: value for key, value in line.items() if not key.startswith("perf/")}
        for line in read_metrics(folder)
    ]


def assert_same_run(folder, other):
    ours, theirs = numbers(folder), numbers(other)
    assert len(ours) == len(theirs) > 0
    for line, its in zip(ours, theirs, strict=True):
        assert line == pytest.approx(its, rel=1e-4)
    tested = [read_summary(f)["metrics"] for f in (folder, other)]
    assert tested[0] == pytest.approx(tested[1], rel=1e-4)


# ------------------------------------------------------------------------------- parts of a batch


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("examples", [1, 2, 7, 64])
def test_the_processes_share_every_row_once(examples, size):
    found = []
    for rank in range(size):
        rows, part = Ranks(rank, size).share(examples)
        indices = list(range(examples))[rows]
        assert len(indices) >= 1  # also where it counts nothing
        assert part == (len(indices) / examples if part else 0)
        found += indices if part else []
    assert found == list(range(examples))


@pytest.mark.parametrize("examples", [1, 3, 10])
def test_weighted_means_of_parts_make_the_mean_of_the_batch(examples):
    values, size = torch.randn(examples, dtype=torch.float64), 4
    shares = [Ranks(rank, size).share(examples) for rank in range(size)]
    # as DistributedDataParallel does: the mean over processes of each loss times its weight
    mean = sum(values[s.rows].mean() * s.part * size for s in shares) / size
    torch.testing.assert_close(mean, values.mean())


def test_own_rows_of_an_order_are_the_shares_of_its_batches():
    order = torch.randperm(25)  # batches of 7, 7, 7, 4
    found = []
    for rank in range(3):
        own, size = Ranks(rank, 3).own(order, 7)
        parts = own.split(size)
        assert len(parts) == 4
        found.append(parts)
    for number, batch in enumerate(order.split(7)):
        assert torch.cat([parts[number] for parts in found]).tolist() == batch.tolist()


def test_a_process_alone_needs_no_group():
    assert ALONE.first
    assert ALONE.from_first(lambda: 3) == ALONE.in_turn(lambda: 3) == 3
    assert ALONE.any(None) is None
    with ALONE.together():
        pass
    module = torch.nn.Linear(1, 1)
    assert ALONE.wrapped(module) == module.forward


# ------------------------------------------------------------------------------------- whole runs


@two_processes
def test_two_processes_give_the_numbers_of_one_also_resumed(make_config, torchrun, tmp_path):
    train(make_config(*TINY, "epochs=2"), tmp_path / "one")
    done = torchrun(*TINY, "epochs=1", "hydra.run.dir=two")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("best epoch") == 1
    assert done.stderr.count("epoch 1/1") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"one", "two"}
    assert len(list((tmp_path / "two").glob("events.out.tfevents.*"))) == 1

    done = torchrun("resume=two", "epochs=2")
    assert done.returncode == 0, done.stderr
    assert "going on after epoch 1" in done.stderr
    assert_same_run(tmp_path / "two", tmp_path / "one")
    assert "2 processes" in read_summary(tmp_path / "two")["device"]


@two_processes
def test_images_on_the_disk_give_the_numbers_of_one_process(make_config, torchrun, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    values = torch.randint(256, (40, 8, 8), dtype=torch.uint8).numpy()
    for number, value in enumerate(values):
        Image.fromarray(value).save(images / f"{number}.png")
    settings = (
        "dataset=image_folder",
        f"dataset.path={images}",
        "dataset.size=8",
        "dataset.channels=1",
        "dataset.in_memory=false",
        "model=mlp_vae",
        "model.hidden_sizes=[16]",
        "batch_size=9",
        "epochs=2",
        "figures=none",
        "image_every=0",
    )
    train(make_config(*settings), tmp_path / "one")
    done = torchrun(*settings, "hydra.run.dir=two")
    assert done.returncode == 0, done.stderr
    assert_same_run(tmp_path / "two", tmp_path / "one")


def test_a_size_without_the_other_processes_is_one_line(vae_train, tmp_path):
    done = vae_train("dataset=digits", WORLD_SIZE="2")
    assert done.returncode == 2
    assert done.stderr.startswith("vae-train: WORLD_SIZE=2: the other processes cannot be joined")
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@two_processes
def test_what_cannot_be_shared_is_refused_in_one_line(torchrun, tmp_path):
    done = torchrun("objective=beta_tcvae", *TINY)
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("vae-train: ")]
    assert "objective=beta_tcvae: needs each batch whole" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-m", "beta=1,2"), "-m: a sweep's runs are not shared"),
        (("bta=1",), "bta=1: no such setting"),
    ],
)
def test_mistakes_in_what_is_shared_are_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    cli.register()
    assert cli._answer([*arguments, *TINY], cli._job, processes=2) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert list(tmp_path.iterdir()) == []


BROKEN = """
import os

from vae_cli import cli, training

real = training.{name}

def broken(*arguments):
    if os.environ["RANK"] == "1" {condition}:
        raise {error}
    return real(*arguments)

training.{name} = broken
cli.main()
"""


@two_processes
@pytest.mark.parametrize(
    ("name", "condition", "error", "message"),
    [
        (
            "train_step",
            "and arguments[0].step == 15",
            "ArithmeticError('sunspots')",
            "process 1 has ended: the run failed: ArithmeticError: sunspots",
        ),
        ("train_step", "and arguments[0].step == 15", "os._exit(9)", "ended without a word"),
        ("_device_and_data", "", "training.build.UserError('no disk')", "process 1 of 2: no disk"),
    ],
)
def test_a_process_that_fails_ends_all_with_a_message(
    torchrun, tmp_path, name, condition, error, message
):
    script = tmp_path / "broken.py"
    script.write_text(BROKEN.format(name=name, condition=condition, error=error))
    done = torchrun(*TINY, "epochs=9", "hydra.run.dir=run", program=[str(script)])
    assert done.returncode != 0
    assert sum(message in line for line in done.stderr.splitlines()) == 1, done.stderr
    if name == "train_step":
        assert read_summary(tmp_path / "run")["status"] == "failed"
        assert len(read_metrics(tmp_path / "run")) == 1  # what was finished is kept
        assert json.loads((tmp_path / "run" / "summary.json").read_text())["epochs"] == 1
    else:
        assert not (tmp_path / "run").exists()
