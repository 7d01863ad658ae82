import pickle
from pathlib import Path

import pytest
import torch

from vae_cli import checkpoint
from vae_cli.errors import UserError


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "last.ckpt"
    checkpoint.save(path, {"weights": torch.randn(50, 3), "epoch": 7, "nested": [{"a": None}]})
    return path


def test_what_is_saved_comes_back(saved: Path):
    state = checkpoint.load(saved)
    assert state["epoch"] == 7
    assert state["nested"] == [{"a": None}]
    torch.manual_seed(0)
    assert state["weights"].equal(torch.randn(50, 3))


def test_plain_torch_reads_it_without_running_code(saved: Path):
    assert torch.load(saved, weights_only=True)["epoch"] == 7


def test_any_truncation_is_noticed(saved: Path):
    content = saved.read_bytes()
    for length in (0, 1, 63, 64, 65, len(content) // 2, len(content) - 1):
        saved.write_bytes(content[:length])
        with pytest.raises(checkpoint.Damaged, match=r"last\.ckpt is damaged"):
            checkpoint.load(saved)


def test_any_changed_byte_is_noticed(saved: Path):
    content = bytearray(saved.read_bytes())
    for position in range(0, len(content), 7):
        changed = bytearray(content)
        changed[position] ^= 1
        saved.write_bytes(changed)
        with pytest.raises(checkpoint.Damaged):
            checkpoint.load(saved)


class Planted:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


def test_a_planted_payload_is_not_executed(saved: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint.save(saved, {"weights": Planted()})  # with a valid checksum
    with pytest.raises(pickle.UnpicklingError):
        checkpoint.load(saved)
    assert not Path("executed").exists()


def test_a_later_format_is_refused(saved: Path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    with pytest.raises(
        UserError, match="has format 1 and this version of vae-train reads format 2"
    ):
        checkpoint.load(saved)


def test_weights_round_trip(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    checkpoint.save_weights(path, {"a": torch.arange(6.0).reshape(2, 3).T}, {"shape": [1, 2]})
    weights, about = checkpoint.load_weights(path)
    assert weights["a"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert about == {"shape": [1, 2]}
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(checkpoint.Damaged):
        checkpoint.load_weights(path)
