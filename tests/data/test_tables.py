"""Tables as pandas, numpy and spreadsheets write them: the values are those that pandas reads."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml

from vae_cli.config.registry import SCHEMAS
from vae_cli.data import tables

SOURCE = np.random.default_rng(0)
FRAME = pd.DataFrame(SOURCE.normal(3, 2, (30, 4)))  # its columns are called 0, 1, 2, 3
NAMED = FRAME.rename(columns=dict(enumerate("abcd")))
KINDS = np.arange(30) % 3


@pytest.fixture
def read(tmp_path, capsys):
    """Read the text of a .csv. -> the table, and what is said."""
    values = yaml.safe_load(Path("configs/dataset/arrays.yaml").read_text())
    values = {key: value for key, value in values.items() if key != "defaults"}

    def read(text: str, like: list[str] | None = None, **settings) -> tuple[SimpleNamespace, str]:
        path = tmp_path / "a.csv"
        path.write_text(text)
        given = {**values, "train": str(path), **settings}
        config = SCHEMAS["dataset", "arrays"].model_validate(given)
        parts = zip(("x", "y", "label", "columns"), tables.read(path, config, like), strict=True)
        return SimpleNamespace(**dict(parts)), capsys.readouterr().err

    return read


def numpys(frame: pd.DataFrame, tmp_path: Path, **settings) -> str:
    np.savetxt(tmp_path / "n.csv", frame, **settings)
    return (tmp_path / "n.csv").read_text()


def test_pandas_names_and_index_are_no_values(read):
    frames = [FRAME, FRAME.sample(frac=1, random_state=0), NAMED, FRAME[[0, 1]], FRAME[[0]]]
    for frame in frames:  # an index is dropped also where its order is another
        table, said = read(frame.to_csv())
        np.testing.assert_array_equal(table.x, frame)
        assert "a line of names, without Unnamed: 0 (an index)" in said
        twice = frame.to_csv().replace(",", "Unnamed: 0,", 1)
        np.testing.assert_array_equal(read(twice)[0].x, frame)
        if len(frame.columns) > 1:
            np.testing.assert_array_equal(read(frame.to_csv(index=False))[0].x, frame)
        np.testing.assert_array_equal(read(frame.to_csv(index=False, header=False))[0].x, frame)
    assert "counts 0, 1, 2" in read(FRAME.to_csv(header=False))[1]  # may be an index, and is kept
    forced = read("0,1,2\n1,2,3\n", header=False)[0]
    assert forced.x.tolist() == [[0, 1, 2], [1, 2, 3]]
    assert read("7,8\n1,2\n", header=True)[0].columns == ["7", "8"]


def test_numpys_line_of_names_and_blanks(read, tmp_path):
    table = FRAME.assign(label=KINDS)[["label", 0, 1, 2, 3]]
    for mark in (",", " ", ";"):
        text = numpys(table, tmp_path, delimiter=mark, header=mark.join(["label", *"abcd"]))
        found = read(text)[0]
        assert (found.label, found.columns) == ("label", list("abcd"))
        np.testing.assert_array_equal(found.x, FRAME)
        np.testing.assert_array_equal(found.y, KINDS)
        assert read(text, header=False)[0].x.shape == (30, 5)
    text = numpys(FRAME, tmp_path, delimiter=",", header="made on 3 May")  # a comment
    np.testing.assert_array_equal(read(text)[0].x, FRAME)


def test_labels_and_columns_by_name_or_position(read):
    words = np.array(["setosa", "virginica", "versicolor"])[KINDS]
    frame = NAMED.assign(kind=words)
    for text in (frame.to_csv(), frame.to_csv(index=False, header=False)):
        table = read(text, labels="-1")[0]
        assert table.y.tolist() == words.tolist()
        np.testing.assert_array_equal(table.x, NAMED)
        chosen, said = read(text, columns=[3, "-5"])
        np.testing.assert_array_equal(chosen.x, NAMED[["d", "a"]])
        assert said.count("not asked for") == 3
        with pytest.raises(ValueError, match=r"setosa.*dataset\.labels.*dataset\.columns"):
            read(text)
        with pytest.raises(ValueError, match=r"no column e among"):
            read(text, labels="e")
    with pytest.raises(ValueError, match=r"write 'dataset\.labels=kind'"):
        read(frame.to_csv())
    for name in ("Label", "species", "target", "Class"):
        assert read(NAMED.assign(**{name: words}).to_csv())[0].y.tolist() == words.tolist()
    assert read(frame.to_csv(), columns=["b"], labels="kind")[0].columns == ["b"]


def test_a_column_that_tells_rows_apart_is_no_value_unless_asked_for(read):
    for name in ("id", "ID", "index", "PassengerId", "row_id"):
        for ids in (np.arange(30) + 1000, [f"a{i}" for i in range(30)]):
            table, said = read(NAMED.assign(**{name: ids}).to_csv(index=False))
            np.testing.assert_array_equal(table.x, NAMED)
            assert f"without {name} (an index)" in said
    text = NAMED.assign(id=np.arange(30)).to_csv(index=False)
    assert read(text, columns=["id", "b"])[0].x[:, 0].tolist() == list(range(30))
    assert read(text, columns=[-1])[0].columns == ["id"]  # positions count it
    assert read(text, like=["id", "a"])[0].columns == ["id", "a"]
    for kept in ("paid", "grid", "kind_of_index_a"):  # no such names
        assert read(text.replace("id", kept, 1))[0].x.shape == (30, 5)
    for values in (np.arange(30) / 7, KINDS):  # measurements, and numbers that come again
        assert read(NAMED.assign(body_mass_index=values).to_csv(index=False))[0].x.shape == (30, 5)


def test_a_table_with_names_takes_over_the_order_of_the_training_file(read):
    text = NAMED[["c", "a", "d", "b"]].assign(more=1).to_csv()
    table, said = read(text, like=list("abcd"))
    np.testing.assert_array_equal(table.x, NAMED)
    assert "without Unnamed: 0 (an index), without more (not asked for)" in said
    with pytest.raises(ValueError, match="no column e"):
        read(text, like=["a", "e"])


def test_spreadsheets(read):
    text = NAMED.to_csv(sep=";", decimal=",", index=False)
    np.testing.assert_allclose(read(text)[0].x, NAMED, rtol=1e-15)
    np.testing.assert_allclose(read(text.partition("\n")[2])[0].x, NAMED, rtol=1e-15)
    for text in ("a,b,\n1,2,\n3,4,\n", "a,b\n1,2,\n3,4,\n", "1,2,\n3,4,\n"):  # a comma at the end
        assert read(text)[0].x.tolist() == [[1, 2], [3, 4]]
    with pytest.raises(Warning, match="does not match length of data"):
        read("a,b\n1,2,3\n3,4,5\n")
