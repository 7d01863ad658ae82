"""One run by several processes: rows of batches, and a whole run by two processes (gloo)."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import distributed as dist

from vae_cli.console import UserError
from vae_cli.runs.saved import read_metrics, read_summary
from vae_cli.training.distributed import joined, share
from vae_cli.training.loop import train

from .conftest import curve

TINY = (
    "dataset=digits",
    "dataset.binarize=dynamic",
    "corruption=masking",
    "ema=0.9",
    "grad_clip=4",
    "model.hidden_sizes=[16]",
    "batch_size=101",  # rows of 50 and 51, and a last batch of 88
    "log_every=5",
    "figures=none",
    "image_every=0",
)


@pytest.mark.parametrize(("examples", "size"), [(1, 1), (1, 3), (7, 2), (7, 8), (64, 3)])
def test_the_processes_share_every_row_once(examples, size):
    values = torch.randn(examples, dtype=torch.float64)
    shares = [share(examples, rank, size) for rank in range(size)]
    assert all(len(values[rows]) >= 1 for rows, _ in shares)  # also where it counts 0
    assert torch.cat([values[rows] for rows, part in shares if part]).equal(values)
    # like DistributedDataParallel: the mean over processes of each loss times its weight
    mean = sum(values[rows].mean() * part * size for rows, part in shares) / size
    torch.testing.assert_close(mean, values.mean())


@pytest.mark.parametrize(
    "setting",
    ["objective=beta_tcvae", "objective=factor", "objective.free_bits=1",
     "likelihood=gaussian_optimal", "beta_schedule=capacity"],
)  # fmt: skip
def test_what_several_processes_cannot_share_is_refused(make_config, monkeypatch, setting):
    monkeypatch.setenv("WORLD_SIZE", "2")
    group = setting.partition("=")[0].partition(".")[0]
    with pytest.raises(UserError, match=f"{group}=.*2 processes"), joined(make_config(setting)):
        pass


SCRIPT = """
import os, sys
from pathlib import Path
from vae_cli.config.compose import settings_of
from vae_cli.training import step
from vae_cli.training.distributed import joined
from vae_cli.training.loop import train

rank, out, settings = os.environ["RANK"], Path(sys.argv[1]), sys.argv[2:]
real = step.train_step

def dying_step(state, *rest):
    if rank == "1" and state.step == 15:
        os._exit(9)
    return real(state, *rest)

short, long, longest = (settings_of("config", [*settings, f"epochs={n}"]) for n in (1, 2, 9))
with joined(short):
    train(short, out / f"run{rank}")
    train(long, out / ("run0" if rank == "0" else "new"))  # rank 1 has no checkpoint
    step.train_step = dying_step
    train(longest, out / f"broken{rank}")
"""


@pytest.mark.skipif(
    sys.platform != "linux" or not (dist.is_available() and dist.is_gloo_available()),
    reason="needs gloo",
)
def test_two_processes_give_the_numbers_of_one_go_on_and_end_together(make_config, tmp_path):
    train(make_config(*TINY, "epochs=2"), tmp_path / "one")
    (tmp_path / "script.py").write_text(SCRIPT)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    torchrun = subprocess.Popen(
        [sys.executable, *launcher, str(tmp_path / "script.py"), str(tmp_path), *TINY],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": "."},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        said = torchrun.communicate(timeout=120)[1]
    finally:
        if torchrun.poll() is None:
            workers = Path(f"/proc/{torchrun.pid}/task/{torchrun.pid}/children").read_text()
            for process in (torchrun.pid, *map(int, workers.split())):
                os.kill(process, signal.SIGKILL)
    assert torchrun.returncode != 0
    two, summary = tmp_path / "run0", read_summary(tmp_path / "run0")
    assert len(curve(two)) == 2, said
    for line, expected in zip(curve(two), curve(tmp_path / "one"), strict=True):
        assert line == pytest.approx(expected, rel=1e-4)
    expected = read_summary(tmp_path / "one")["metrics"]
    assert summary["metrics"] == pytest.approx(expected, rel=1e-4)
    assert summary["device"].endswith("2 processes")
    # after the death of rank 1 in the second epoch rank 0 keeps what was finished
    assert read_summary(tmp_path / "broken0")["status"] == "failed"
    assert len(read_metrics(tmp_path / "broken0")) == 1
