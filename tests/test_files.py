import json
from pathlib import Path

import pytest

from vae_cli.files import link, replacing, write_json, write_text


def test_a_file_is_replaced_whole(tmp_path: Path):
    path = tmp_path / "a.json"
    write_text(path, "old")
    write_json(path, {"ü": 1})
    assert json.loads(path.read_text()) == {"ü": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as file:
        file.write(b"half of the n")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_written_file_has_ordinary_permissions(tmp_path: Path):
    (tmp_path / "plain").touch()
    write_text(tmp_path / "ours", "")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_a_second_name_for_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool):
    best, last, previous = (tmp_path / name for name in ("best", "last", "previous"))
    write_text(best, "new")
    write_text(last, "old")
    if not links:

        def refuse(path: Path, target: Path) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(Path, "hardlink_to", refuse)
    link(best, last, previous)
    assert [path.read_text() for path in (best, last, previous)] == ["new", "new", "old"]
    assert best.samefile(last) == links
    write_text(last, "newer")  # a new file: the other keeps its content
    assert best.read_text() == "new"
    assert len(list(tmp_path.iterdir())) == 3
