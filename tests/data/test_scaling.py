"""What is said of values that a loss of variance 1 is not meant for."""

import re
from pathlib import Path

import numpy as np
import pytest

SOURCE = np.random.default_rng(0)
IMAGES = SOURCE.random((40, 6, 6))
TABLE = SOURCE.normal(0, 1, (40, 3))


@pytest.fixture
def said(load, tmp_path, capsys):
    """Load an array, or a table whose columns are a, b, c. -> the notes, below each other."""

    def said(values: np.ndarray, named: bool = False, **settings) -> str:
        path = Path(tmp_path / ("a.csv" if named else "a.npy"))
        if named:
            np.savetxt(path, values, delimiter=",", header="a,b,c", comments="")
        else:
            np.save(path, values)
        load("arrays", train=str(path), **settings)
        lines = capsys.readouterr().err.splitlines()
        return "\n".join(line for line in lines if line.startswith("note: "))

    return said


@pytest.mark.parametrize(
    ("values", "named", "note"),
    [
        (IMAGES * 255, False, r"a channel has the standard deviation \d\d, .*scale=minmax"),
        (IMAGES * 65535, False, r"a channel has .* \d\d,\d+, .*; use dataset.scale=minmax"),
        ((IMAGES * 255).reshape(40, 36), False, "a column has .*; use dataset.scale=minmax"),
        (TABLE * 1e-4, False, "a column has the standard deviation 0.0001, .*scale=standard"),
        (
            (IMAGES * 255).astype(int).reshape(40, 36),
            False,
            r"grey values, write 'dataset.shape=\[6,6\]'",
        ),
        (TABLE * [1, 1e4, 1], True, "the column b has the standard deviation .*scale=standard"),
        (TABLE * [1, 2, 1e-3], True, r"the column b varies \d,\d+ times as much as c, .*=standard"),
    ],
)
def test_another_magnitude_is_answered_with_what_to_set(said, values, named, note):
    assert re.search(note, said(values, named))
    assert said(values, named, scale="standard") == ""


def test_usual_values_are_not_remarked_upon(said):
    bytes_ = (IMAGES * 255).astype(np.uint8)
    for values in (IMAGES, IMAGES * 2 - 1, bytes_, bytes_.astype("f4"), TABLE, TABLE * 0 + 3e4):
        assert said(values) == ""
    curves = TABLE * [1, 1e-3, 1]  # of a curve, points may well vary by little
    assert said(curves) == ""
    assert said(TABLE * [1, 0, 3], named=True) == ""  # a constant column
