"""The fast part of the fault script: real kills of the real command, exact resumption."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("part", ["kills", "disk"])
def test_nothing_is_lost(tmp_path, part):
    command = [sys.executable, "-m", "benchmarks.faults", "--quick", "--kills=3", f"--only={part}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, f"--out={tmp_path}"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = tmp_path.glob("faults-*.json")
    result = json.loads(path.read_text())
    assert result["versions"]["torch"]
    counts = result["faults"].values()
    assert all(count["lost"] == 0 for count in counts)
    if part == "kills":
        assert sum(count["injected"] for count in counts) == 3
        assert any("while writing" in kind for kind in result["faults"])
