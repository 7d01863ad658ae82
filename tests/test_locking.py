import os
import signal
import subprocess
import sys

import pytest

from vae_cli.errors import UserError
from vae_cli.locking import is_locked, locked

HOLD = """
import sys, time
from pathlib import Path
from vae_cli.locking import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_folder_is_free_before_and_after(tmp_path):
    assert not is_locked(tmp_path)
    with locked(tmp_path):
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path)
    with locked(tmp_path):
        pass


def test_a_second_process_is_refused_and_a_kill_sets_the_folder_free(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        assert is_locked(tmp_path)
        with pytest.raises(UserError, match=rf"in use by another process \(process {holder.pid}"):
            locked(tmp_path).__enter__()
        os.kill(holder.pid, signal.SIGKILL)
    assert not is_locked(tmp_path)
    with locked(tmp_path):
        pass
