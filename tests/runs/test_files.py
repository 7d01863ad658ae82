import json
import math
import signal
import subprocess
import sys

import pytest

from vae_cli.console import UserError
from vae_cli.runs import files

HOLD = """
import sys, time, pathlib, vae_cli.runs.files
with vae_cli.runs.files.locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"ü": 1})
    with pytest.raises(KeyboardInterrupt), files.replacing(path) as file:
        file.write(b"half of the n")
        raise KeyboardInterrupt
    assert json.loads(path.read_text()) == {"ü": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_second_process_is_refused_and_a_kill_sets_the_folder_free(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="in use"), files.locked(tmp_path):
            pass
        holder.send_signal(signal.SIGKILL)
    with files.locked(tmp_path):
        pass


def test_json_has_no_nan_and_no_infinity():
    assert (
        files.as_json({"a": math.nan, "b": [1.5, -math.inf]}) == '{"a": null, "b": [1.5, null]}\n'
    )


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    said = r"file/run cannot be written: .*; set hydra\.run\.dir"
    with pytest.raises(UserError, match=said), files.locked(tmp_path / "file" / "run"):
        pass
