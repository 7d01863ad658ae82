import resource

import pytest

from vae_cli.console import RunFailed
from vae_cli.runs import checkpoint, saved
from vae_cli.runs.folder import Run


@pytest.fixture
def config(make_config):
    return make_config("dataset=digits")


def test_a_run_leaves_its_files(config, tmp_path):
    run = Run(tmp_path, config, swept=["seed"])
    run.write_summary(device="cpu")
    run.log_epoch({"epoch": 1, "step": 5})
    run.keep({"epoch": 1}, best=True)
    run.keep({"epoch": 2})
    run.close("completed", epochs=2)
    names = {path.name for path in tmp_path.iterdir() if "tfevents" not in path.name}
    assert names == {"config.yaml", "summary.json", "metrics.jsonl", "checkpoints"}
    assert saved.saved_config(tmp_path) == config
    summary = saved.read_summary(tmp_path)
    ended = {"status": "completed", "device": "cpu", "epochs": 2, "swept": ["seed"]}
    assert summary | ended == summary
    assert {"vae-cli", "python", "torch"} <= set(summary["versions"])
    assert [checkpoint.load(path)["epoch"] for path in (run.last, run.best)] == [2, 1]


def test_a_run_that_goes_on_forgets_what_came_after_its_checkpoint(config, tmp_path):
    run = Run(tmp_path, config)
    for epoch in (1, 2, 3):
        run.log_epoch({"epoch": epoch})
        run.keep({"epoch": epoch})
    run.close("interrupted")
    run.last.write_bytes(run.last.read_bytes()[:-9])
    again = Run(tmp_path, config, epoch=2, step=10)
    assert len(saved.read_metrics(tmp_path)) == 2
    again.keep({"epoch": 3})
    again.close("completed")
    assert checkpoint.load(run.checkpoints / "previous.ckpt") == {"epoch": 2}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_full_disk_costs_numbers_and_ends_a_run_at_a_checkpoint(config, tmp_path, capsys):
    run = Run(tmp_path, config)
    run.keep({"epoch": 0})
    run.log_epoch({"epoch": 1})
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, most))  # writes beyond 20 bytes fail
    for epoch in range(2, 300):
        run.log_steps(epoch, {"train/loss": 1.0})
        run.log_epoch({"epoch": epoch})
        run.write_summary()
    with pytest.raises(RunFailed, match=r"last\.ckpt cannot be written"):
        run.keep({"epoch": 299})
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    said = capsys.readouterr().err
    assert said.count("logger=tensorboard has failed: ") == 1
    for name in ("metrics.jsonl", "summary.json"):
        assert said.count(f"{name} cannot be written: ") == 1
    assert len(saved.read_metrics(tmp_path)) == 1
    run.log_epoch({"epoch": 300})  # there is room again
    assert [line["epoch"] for line in saved.read_metrics(tmp_path)] == [*range(1, 301)]
    run.close("failed")
    assert checkpoint.load_newest(run.checkpoints) == ({"epoch": 0}, "")
    assert not list(tmp_path.rglob(".*.tmp"))
