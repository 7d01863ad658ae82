import os
from pathlib import Path

import pytest
import torch

from vae_cli.runs import checkpoint, files


class Killed(BaseException):
    """Stands for a kill: nothing is tidied up after it."""


class Planted:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


@pytest.fixture
def places(tmp_path):
    """last.ckpt with epoch 2 and previous.ckpt with epoch 1."""
    last, previous = tmp_path / "last.ckpt", tmp_path / "previous.ckpt"
    for epoch in (1, 2):
        checkpoint.save(last, {"epoch": epoch}, previous)
    return last, previous


@pytest.mark.parametrize("kind", ["state", "weights"])
def test_no_damage_is_loaded(tmp_path, kind):
    path, content = tmp_path / "a.file", {"a": torch.randn(3, 20).T, "b": torch.ones(2)}
    if kind == "state":
        checkpoint.save(path, {**content, "nested": [{"a": None}]})
        assert checkpoint.load(path)["nested"] == [{"a": None}]
    else:
        checkpoint.save_weights(path, content, {"shape": [1, 2]})
        assert checkpoint.load_weights(path)[1] == {"shape": [1, 2]}
    whole = path.read_bytes()
    for place in range(0, len(whole), 3):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        for damaged in (whole[:place], bytes(flipped)):
            path.write_bytes(damaged)
            try:  # a flipped bit may lie between the entries of the archive, and harm nothing
                state = (
                    checkpoint.load(path) if kind == "state" else checkpoint.load_weights(path)[0]
                )
                assert all(state[name].equal(x) for name, x in content.items())
                assert damaged is not whole[:place]
            except checkpoint.Damaged as error:
                assert "a.file is damaged" in str(error)  # noqa: PT017


def test_a_planted_payload_is_not_executed_and_another_format_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "last.ckpt"
    checkpoint.save(path, {"weights": Planted()})  # with valid checksums
    with pytest.raises(checkpoint.Damaged):
        checkpoint.load(path)
    assert not Path("executed").exists()
    checkpoint.save(path, {"epoch": 1})
    monkeypatch.setattr(checkpoint, "FORMAT", 99)
    with pytest.raises(checkpoint.Damaged, match="another format"):
        checkpoint.load(path)


def test_the_newest_whole_checkpoint_is_taken_and_a_damaged_one_named(places, tmp_path):
    last, previous = places
    assert checkpoint.load_newest(tmp_path) == ({"epoch": 2}, "")
    last.write_bytes(last.read_bytes()[:-1])
    state, line = checkpoint.load_newest(tmp_path)
    assert state == {"epoch": 1}
    assert line.startswith(f"{last} is damaged")
    checkpoint.set_damaged_aside(tmp_path)
    checkpoint.save(last, {"epoch": 2}, previous)  # the whole one is not pushed out
    assert [checkpoint.load(path)["epoch"] for path in places] == [2, 1]
    for path in places:
        path.write_bytes(b"")
    with pytest.raises(checkpoint.Damaged, match="no whole checkpoint"):
        checkpoint.load_newest(tmp_path)


@pytest.mark.parametrize("moment", [(torch, "save"), (os, "fsync")], ids=["writing", "flushing"])
def test_a_kill_while_it_is_written_leaves_a_whole_one(places, tmp_path, monkeypatch, moment):
    def kill(*args: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *args, **kwargs: None)
        patch.setattr(*moment, kill)
        with pytest.raises(Killed):
            checkpoint.save(places[0], {"epoch": 3}, places[1])
    assert checkpoint.load_newest(tmp_path) == ({"epoch": 2}, "")
    files.remove_leftovers(tmp_path)
    assert {*tmp_path.iterdir()} <= {*places}


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_the_best_and_the_last_checkpoint_are_one_file(places, tmp_path, monkeypatch, links):
    def refuse(path: Path, target: Path) -> None:
        raise PermissionError

    best = tmp_path / "best.ckpt"
    if not links:
        monkeypatch.setattr(Path, "hardlink_to", refuse)
    checkpoint.save(places[0], {"epoch": 3}, places[1], best)
    assert best.samefile(places[0]) == links
    checkpoint.save(places[0], {"epoch": 4}, places[1])  # a new file: best keeps its content
    assert [checkpoint.load(path)["epoch"] for path in (best, *places)] == [3, 4, 3]
