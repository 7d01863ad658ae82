import os

import numpy as np
import pytest
import torch

from vae_cli.console import RunFailed, UserError
from vae_cli.training.build import device_of, load_data, out_of_memory, prepared_process
from vae_cli.training.dry_run import dry_run


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert device_of("cpu").type == "cpu"
    with pytest.raises(UserError, match="device=cuda:3"):
        device_of("cuda:3")


@pytest.mark.parametrize(
    ("values", "overrides", "message"),
    [
        (np.linspace(-1, 2, 60), (), "likelihood=bernoulli"),
        (np.linspace(0, 1, 60), ("model=conv_vae",), "model=conv_vae"),
        (np.linspace(0, 1, 60), ("batch_size=31",), "batch_size=31"),
    ],
)
def test_data_that_does_not_go_with_the_settings_is_refused(
    make_config, tmp_path, values, overrides, message
):
    np.save(tmp_path / "x.npy", values.reshape(30, 2).astype(np.float32))
    settings = (f"dataset.train={tmp_path}/x.npy", "likelihood=bernoulli", "batch_size=8")
    with pytest.raises(UserError, match=message):
        load_data(make_config("dataset=arrays", *settings, *overrides))


def test_denormal_numbers_are_flushed_while_a_run_trains(make_config):
    smallest = torch.tensor([torch.finfo(torch.float32).tiny])
    with prepared_process(make_config()):
        assert (smallest / 2).item() == 0 or not torch.set_flush_denormal(True)
    assert (smallest / 2).item() > 0


def test_programs_lie_in_the_users_cache_or_where_it_cannot_be_written_in_torchs_own(
    make_config, tmp_path, monkeypatch
):
    (tmp_path / "file").touch()
    for cache, kept in ((tmp_path / "file", None), (tmp_path, f"{tmp_path}/vae-cli/compiled")):
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")
        monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
        monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
        with prepared_process(make_config()):
            assert os.environ.get("TORCHINDUCTOR_CACHE_DIR") == kept


def test_only_a_lack_of_memory_is_named_as_one(make_config):
    with pytest.raises(RunFailed, match="batch_size=128"), out_of_memory(make_config()):
        raise MemoryError
    with pytest.raises(RuntimeError, match="something else"), out_of_memory(make_config()):
        raise RuntimeError("something else")


def test_a_dry_run_prints_shapes_and_sizes(make_config, capsys):
    dry_run(make_config("dataset=digits", "model=conv_vae"))
    out = capsys.readouterr().out
    for word in ("[128, 1, 8, 8] -> [", "parameters", "MiB", "ms a step"):
        assert word in out
