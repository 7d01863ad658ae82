"""The notebook of the documentation runs, cell by cell."""

import json
from pathlib import Path

import matplotlib
import pytest

NOTEBOOK = Path(__file__).parent.parent / "docs" / "quickstart.ipynb"


def test_the_quickstart_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    names: dict[str, object] = {}
    for cell in (cell for cell in cells if cell["cell_type"] == "code"):
        assert len(cell["source"]) <= 4
        assert cell["outputs"] == []
        exec("".join(cell["source"]), names)
    assert names["run"].metrics["test/elbo"] == pytest.approx(-25.5, abs=0.3)
    assert names["table"]["status"].tolist() == ["completed"] * 3
    matplotlib.pyplot.close("all")
