"""Table, CSV, JSON, Markdown and the page, read back."""

import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from vae_cli.console import UserError
from vae_cli.sweeps import report
from vae_cli.sweeps.table import compare

HOSTILE = '<script>alert("1")</script>&"\'|`$(x)`'


@pytest.fixture
def sweep(sweep_folder):
    return compare([sweep_folder])


def test_the_table_is_aligned_and_says_how_each_run_ended(sweep):
    text = report.terminal(sweep)
    fixed, answer, table, *_ = text.split("\n\n")
    assert fixed == "all runs: dataset=digits, model=mlp_vae, likelihood=bernoulli, epochs=4"
    assert answer == "4 of 6 runs completed; best val/elbo -24.5 ± 0.71 with beta=1"
    header, names, _, rule, *rows = table.splitlines()
    assert header.split() == ["beta", "runs", "val", *["test"] * 4, "seconds"]
    assert names.split()[:4] == ["elbo", "elbo", "reconstruction", "kl"]
    assert set(rule) == {" ", "-"}
    assert rows[0].split()[:5] == ["1", "2", "-24.500", "±", "0.707"]
    assert rows[0].endswith("*")
    assert rows[1].index(".") == rows[0].index("1") + 1  # 0.5 below 1
    assert rows[2].split() == ["4", "0", "of", "2"]
    assert "beta=4, seed=0  failed, 0/4: RunFailed: loss is not finite" in text
    assert "beta=4, seed=1  interrupted, 2/4" in text


def test_decimal_points_stand_below_each_other_with_and_without_a_deviation(
    sweep_folder, write_run, measured
):
    write_run(sweep_folder / "one", measured(13.25, 30), beta=16.0)
    table = report.group_table(compare([sweep_folder]))
    for name in ("beta", "test kl"):
        cells = [cell for cell in table[name] if cell.strip()]
        assert len({len(cell) - (cell + ".").index(".") for cell in cells if "." in cell}) == 1
    assert len({*table.columns}) == len(table.columns)
    assert report.aligned(["0.5", "1", "[4]"]) == ["0.5", "1", "[4]"]


def test_a_narrow_terminal_leaves_out_columns_and_a_pipe_none(sweep, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert "active" in report.terminal(sweep)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    text = report.terminal(sweep)
    assert "active" not in text
    assert "a wider terminal shows more" in text
    assert max(map(len, text.split("\n\n")[2].splitlines())) <= 80


def test_a_command_has_the_switches_of_its_sweep_and_its_plug_ins(
    tmp_path, write_run, measured, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "beta=1", measured(1, 2), overrides=("beta=1",), plugins=["my_vae"])
    (tmp_path / "jobs.json").write_text(json.dumps({"switches": ["--config-dir=my own"]}))
    lines = report.commands(compare([Path()]))
    assert lines["the best again"] == ("vae-train '--config-dir=my own' 'plugins=[my_vae]' beta=1")
    run = f"run={tmp_path}/beta=1"
    assert lines["pictures of a run"] == f"vae-eval 'plugins=[my_vae]' {run} task=figures"


def test_a_command_for_what_is_not_there_is_left_out(tmp_path, write_run, measured):
    for name, logger in (("a", {}), ("b", {"csv": {"name": "csv"}})):
        write_run(tmp_path / name, measured(1, 2), seed=ord(name), logger=logger, figures="all")
    assert list(report.commands(compare([tmp_path]))) == ["the best again"]
    write_run(tmp_path / "a" / "b", None, "interrupted")
    assert list(report.commands(compare([tmp_path / "a" / "b"]))) == ["all runs in TensorBoard"]
    write_run(tmp_path / "c", measured(1, 2), logger={"tensorboard": {"name": "tensorboard"}})
    lines = report.commands(compare([tmp_path]))
    assert lines["all runs in TensorBoard"] == f"tensorboard --logdir {tmp_path}"


def test_csv_is_a_row_a_run_with_all_digits(sweep):
    rows = list(csv.DictReader(io.StringIO(report.csv_text(sweep))))
    assert list(rows[0])[:5] == ["beta", "seed", "test/elbo", "test/reconstruction", "test/kl"]
    assert list(rows[0])[-4:] == ["seconds", "status", "error", "folder"]
    assert [row["status"] for row in rows].count("completed") == 4
    for row, run in zip(rows, sweep.saved, strict=True):
        assert float(row["beta"]) == run.settings["beta"]
        assert row["folder"] == run.folder.name
        for name, value in (run.summary["metrics"] or {}).items():
            assert float(row[name]) == value
    failed = next(row for row in rows if row["status"] == "failed")
    assert (failed["error"], failed["test/kl"]) == ("RunFailed: loss is not finite", "")


def test_json_is_strict_and_complete(sweep, tmp_path, write_run, measured):
    content = json.loads(report.json_text(sweep), parse_constant=lambda name: pytest.fail(name))
    assert content["swept"] == ["beta"]
    assert content["command"] == "vae-train -m beta=0.5,1,4 seed=0,1"
    group = content["groups"][0]
    assert group["settings"] == {"beta": 1.0}
    assert group["metrics"]["test/kl"] == {"mean": 3.25, "std": pytest.approx(0.35355339)}
    assert [run["beta"] for run in content["runs"] if run["group"] == 0] == [1, 1]
    assert content["runs"][0]["overrides"] == ["beta=1", "seed=0"]
    assert content["runs"][0]["settings"]["model"]["latent_dim"] == 8
    write_run(tmp_path / "a", measured(1, 2), beta=float("inf"))
    text = report.json_text(compare([tmp_path / "a"]))
    content = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert content["runs"][0]["settings"]["beta"] is None
    assert content["groups"][0]["metrics"]["test/kl"]["std"] is None


class Page(HTMLParser):
    """Tags with their attributes, in order, and all texts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)


def test_the_page_needs_nothing_from_outside(sweep, tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    text = report.page(sweep, "report.html", [("a picture", tmp_path / "a.png")])
    page = Page(text)
    sources = [a[key] for _, a in page.tags for key in ("src", "href", "srcset") if key in a]
    assert sources == ["data:image/png;base64,iVBORw=="]
    assert not re.search(r"https?:|//\w|@import|url\(", text)
    policies = [a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a]
    assert policies[0].startswith("default-src 'none'")
    assert [tag for tag, _ in page.tags].count("tr") == 1 + 3 + 1 + 6
    everything = "".join(page.texts)
    for wanted in ("vae-train -m beta=0.5,1,4 seed=0,1", "tensorboard --logdir", "torch 2.15.0",
                   "RunFailed: loss is not finite", "vae-train beta=1 seed=0"):  # fmt: skip
        assert wanted in everything


def test_the_page_escapes_what_it_shows(tmp_path, write_run, measured):
    write_run(tmp_path / "a", measured(1, 2), beta=2.0)
    write_run(tmp_path / HOSTILE.replace("/", ""), None, "failed", (f"x={HOSTILE}",), HOSTILE,
              model__name=HOSTILE)  # fmt: skip
    (tmp_path / "a.png").touch()
    sweep, pictures = compare([tmp_path]), [(HOSTILE, tmp_path / "a.png")]
    page = Page(report.page(sweep, "report.html", pictures))
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert all(set(attrs) <= {"alt", "src"} for tag, attrs in page.tags if tag == "img")
    assert HOSTILE in "".join(page.texts)


def test_markdown_has_a_table_pictures_and_commands(sweep, tmp_path):
    text = report.page(sweep, "report.md", [("picture", tmp_path / "a.png")])
    assert "![picture](figures/a.png)" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 3
    assert {row.count("|") for row in rows} == {10}
    assert text.startswith("# Sweep over beta\n\nall runs: dataset=digits, ")
    assert "# the sweep again\nvae-train -m beta=0.5,1,4 seed=0,1" in text
    assert "RunFailed: loss is not finite" in text


def test_the_files_go_into_a_folder_and_are_no_runs(sweep_folder, tmp_path):
    out = tmp_path / "a" / "b"
    files, failed = report.write_report(compare([sweep_folder]), out, figures=False)
    assert failed == []
    assert [path.name for path in files] == ["sweep.csv", "sweep.json", "report.md", "report.html"]
    assert all(path.stat().st_size > 400 for path in files)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="out="):
        report.write_report(compare([sweep_folder]), tmp_path / "file", figures=False)


def test_the_end_of_a_sweep_is_a_report_or_a_warning(sweep_folder):
    (sweep_folder / "foreign").mkdir()
    (sweep_folder / "foreign" / "config.yaml").write_text("name: other\n")
    text = report.sweep_report(sweep_folder, figures=False)
    assert f"tensorboard --logdir {sweep_folder}" in text
    for shown in (text, *(path.read_text() for path in sweep_folder.glob("report.*"))):
        assert "not a configuration of vae-train" in shown
    assert report.commands(compare([sweep_folder]))["the best again"] == "vae-train beta=1 seed=0"
    (sweep_folder / "sweep.csv").unlink()
    (sweep_folder / "sweep.csv").mkdir()
    assert report.sweep_report(sweep_folder, figures=False).startswith("warning: no report")
