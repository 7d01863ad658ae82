import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from safetensors import torch as safetensors

from vae_cli import checkpoint, files
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
    for length in {*range(70), *range(0, len(content), 11), len(content) - 1}:
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
    assert pickle.loads(pickle.dumps(Planted())) is None  # it does work
    Path("executed").unlink()
    checkpoint.save(saved, {"weights": Planted()})  # with a valid checksum
    with pytest.raises(checkpoint.Damaged, match=r"is not a checkpoint of vae-train: [^\n]+$"):
        checkpoint.load(saved)
    (tmp_path / "model.safetensors").write_bytes(pickle.dumps(Planted()))
    with pytest.raises(checkpoint.Damaged):
        checkpoint.load_weights(tmp_path / "model.safetensors")
    assert not Path("executed").exists()


# what a pickle with a tensor of ten numbers says -> the same with a petabyte in its place
PETABYTES = {
    "storage": (b"K\x0atq", b"\x8a\x07" + (1 << 50).to_bytes(7, "little") + b"tq"),
    "tensor": (b"K\x00K\x0a\x85", b"K\x00\x8a\x07" + (1 << 50).to_bytes(7, "little") + b"\x85"),
    "bytearray": (
        b"X\x01\x00\x00\x00w",
        b"cbuiltins\nbytearray\n\x8a\x07" + (1 << 50).to_bytes(7, "little") + b"\x85R0"
        b"X\x01\x00\x00\x00w",
    ),
}


def resealed(path: Path, change: Callable[[bytes], bytes], compression: int) -> None:
    """Write a checkpoint anew with another pickle and a checksum that is right again."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, change(content) if name.endswith("data.pkl") else content)
    sealed = buffer.getvalue()[:-2] + (64).to_bytes(2, "little")
    path.write_bytes(sealed + sha256(sealed).hexdigest().encode())


@pytest.mark.parametrize("kind", PETABYTES)
def test_a_promised_petabyte_is_refused(tmp_path: Path, kind: str):
    path = tmp_path / "last.ckpt"
    checkpoint.save(path, {"w": torch.zeros(10)})
    resealed(path, lambda pickled: pickled, zipfile.ZIP_STORED)
    assert checkpoint.load(path)["w"].equal(torch.zeros(10))
    old, new = PETABYTES[kind]

    def change(pickled: bytes) -> bytes:
        assert pickled.count(old) == 1
        return pickled.replace(old, new)

    resealed(path, change, zipfile.ZIP_STORED)
    with pytest.raises(checkpoint.Damaged, match=r"is not a checkpoint of vae-train"):
        checkpoint.load(path)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch):
    path = tmp_path / "last.ckpt"
    checkpoint.save(path, {"w": torch.zeros(1 << 20)})
    resealed(path, lambda pickled: pickled, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 20_000
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: pytest.fail("was unpacked"))
    with pytest.raises(checkpoint.Damaged, match="promise more than the file holds"):
        checkpoint.load(path)


def test_a_file_beyond_the_memory_and_a_pipe_are_refused(tmp_path: Path):
    path = tmp_path / "last.ckpt"
    with path.open("wb") as file:
        file.truncate(1 << 43)  # takes no room on the disk
    for load in (checkpoint.load, checkpoint.load_weights):
        with pytest.raises(checkpoint.Damaged, match=r"it has 8\.0 TiB and .* of memory are free"):
            load(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(checkpoint.Damaged, match="no regular file"):
        checkpoint.load(path)


def test_the_newest_whole_checkpoint_is_found_and_the_damaged_named(tmp_path: Path):
    last, previous = tmp_path / "last.ckpt", tmp_path / "previous.ckpt"
    for epoch in (1, 2, 3):
        checkpoint.save(last, {"epoch": epoch}, former=previous)
    assert checkpoint.load_newest(tmp_path) == ({"epoch": 3}, "")
    assert checkpoint.load(previous) == {"epoch": 2}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.ckpt", "previous.ckpt"]

    last.write_bytes(last.read_bytes()[:-1])
    state, line = checkpoint.load_newest(tmp_path)
    assert state == {"epoch": 2}
    assert line == (
        f"{last} is damaged: its content does not match its checksum; previous.ckpt is taken"
    )
    checkpoint.set_damaged_aside(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.ckpt.damaged", "previous.ckpt"]
    # the whole one is not pushed out by the next
    checkpoint.save(last, {"epoch": 3}, former=previous)
    assert checkpoint.load(previous) == {"epoch": 2}
    assert checkpoint.load_newest(tmp_path) == ({"epoch": 3}, "")

    for path in (last, previous):
        path.write_bytes(b"")
    with pytest.raises(checkpoint.Damaged, match="there is no whole checkpoint"):
        checkpoint.load_newest(tmp_path)
    with pytest.raises(checkpoint.Damaged, match="holds no checkpoint"):
        checkpoint.load_newest(tmp_path / "empty")


@pytest.mark.parametrize("moment", ["write", "fsync", "first rename", "second rename"])
def test_a_kill_at_any_moment_of_writing_leaves_a_whole_one(tmp_path: Path, monkeypatch, moment):
    """The writer stops at that moment, as after a kill: nothing is tidied up."""
    last, previous = tmp_path / "last.ckpt", tmp_path / "previous.ckpt"
    for epoch in (1, 2):
        checkpoint.save(last, {"epoch": epoch}, former=previous)

    class Killed(BaseException):
        pass

    def kill(*args: object, **kwargs: object) -> None:
        raise Killed

    real = Path.replace
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *args, **kwargs: None)
        if moment == "write":
            patch.setattr(os, "fsync", kill)
        elif moment == "fsync":
            patch.setattr(Path, "replace", kill)
        else:
            names = {"first rename": "last.ckpt", "second rename": ""}

            def rename(path: Path, target: Path) -> Path:
                if path.name == names[moment] or (not names[moment] and path.suffix == ".tmp"):
                    raise Killed
                return real(path, target)

            patch.setattr(Path, "replace", rename)
        with pytest.raises(Killed):
            checkpoint.save(last, {"epoch": 3}, former=previous)
    state, line = checkpoint.load_newest(tmp_path)
    assert (state["epoch"], line) == (2, "")
    files.remove_leftovers(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} <= {"last.ckpt", "previous.ckpt"}
    assert checkpoint.load_newest(tmp_path)[0]["epoch"] == 2


def test_a_later_format_is_refused(saved: Path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", 99)
    with pytest.raises(
        UserError, match=r"has format \d+ and this version of vae-train reads format 99"
    ):
        checkpoint.load(saved)


def test_weights_round_trip(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    checkpoint.save_weights(path, {"a": torch.arange(6.0).reshape(2, 3).T}, {"shape": [1, 2]})
    weights, about = checkpoint.load_weights(path)
    assert weights["a"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert about == {"shape": [1, 2]}


def test_any_change_of_the_weights_is_noticed(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    checkpoint.save_weights(path, {"a": torch.randn(20), "b": torch.ones(3)}, {"shape": [1, 2]})
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(checkpoint.Damaged):
            checkpoint.load_weights(path)
    for position in range(len(content)):
        for bit in (0, 5):
            changed = bytearray(content)
            changed[position] ^= 1 << bit
            path.write_bytes(changed)
            with pytest.raises(checkpoint.Damaged):
                checkpoint.load_weights(path)


def test_a_header_that_promises_a_petabyte_is_refused(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    size = 1 << 50
    header = json.dumps({"a": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}})
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode())
    with pytest.raises(checkpoint.Damaged):
        checkpoint.load_weights(path)
    path.write_bytes(size.to_bytes(8, "little") + header.encode())
    with pytest.raises(checkpoint.Damaged):
        checkpoint.load_weights(path)


def test_weights_without_a_checksum_are_read(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(
        safetensors.save(
            {"a": torch.ones(2)}, {"vae-cli": json.dumps({"format": checkpoint.FORMAT, "epoch": 3})}
        )
    )
    weights, about = checkpoint.load_weights(path)
    assert (weights["a"].tolist(), about) == ([1, 1], {"epoch": 3})
