"""Table, CSV, JSON, Markdown and the page, read back."""

import csv
import io
import json
import re
import struct
from html.parser import HTMLParser

import pytest

from vae_cli.report.data import csv_text, json_text
from vae_cli.report.page import html_page
from vae_cli.report.sweep import read_sweep
from vae_cli.report.table import markdown, terminal

PNG = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + struct.pack(">II", 20, 10)
HOSTILE = '<script>alert("1")</script>&"\'|`$(x)`'


@pytest.fixture
def sweep(sweep_folder):
    return read_sweep([sweep_folder])


def test_the_table_is_aligned_and_says_how_each_ended(sweep):
    text = terminal(sweep, 100)
    assert text.startswith("4 of 6 runs completed; best test/elbo -24.5 ± 0.71 with beta=1\n")
    header, rule, *rows = text.split("\n\n")[1].splitlines()
    assert header.split() == ["beta", "runs", "elbo", "reconstruction", "kl", "active", "units",
                              "seconds"]  # fmt: skip
    assert set(rule) == {" ", "-"}
    assert rows[0].split()[:5] == ["1", "2", "-24.50", "±", "0.71"]
    assert rows[2].split() == ["4", "0", "of", "2", "failed,", "interrupted"]
    column = header.index("kl") + 2
    assert {row[column - 1] for row in rows[:2]} <= set("0123456789")
    assert "beta=4, seed=0  failed, 1/4: RunFailed: loss is not finite" in text
    assert "beta=4, seed=1  interrupted, 2/4" in text


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_table_fits_the_terminal(tmp_path, write_run, measured, width):
    for i in range(60):
        settings = {"model__hidden_sizes": [i] * 30, "optimizer__lr": 10.0**-i, "beta": float(i)}
        error = "x" * 500 if i % 2 else "word " * 100
        status = "failed" if i > 50 else "completed"
        write_run(tmp_path / f"{i}", measured(i, 1), status, error=error, **settings)
    (tmp_path / ("long" * 50)).mkdir()
    (tmp_path / ("long" * 50) / "config.yaml").write_text("x")
    text = terminal(read_sweep([tmp_path]), width)
    assert max(map(len, text.splitlines())) <= width
    assert "and 20 more, see sweep.csv" in text


def test_csv_is_a_row_a_run_with_all_digits(sweep):
    rows = list(csv.DictReader(io.StringIO(csv_text(sweep))))
    assert list(rows[0])[:5] == ["beta", "seed", "test/elbo", "test/reconstruction", "test/kl"]
    assert list(rows[0])[-4:] == ["seconds", "status", "error", "folder"]
    assert [row["status"] for row in rows].count("completed") == 4
    for row, run in zip(rows, sweep.runs, strict=True):
        assert float(row["beta"]) == run.settings["beta"]
        assert row["folder"] == run.name
        for name, value in run.metrics.items():
            assert float(row[name]) == value
    failed = next(row for row in rows if row["status"] == "failed")
    assert failed["error"] == "RunFailed: loss is not finite"
    assert failed["test/kl"] == ""


def test_json_is_strict_and_complete(sweep):
    def refuse(name):
        raise AssertionError(name)

    content = json.loads(json_text(sweep), parse_constant=refuse)
    assert content["swept"] == ["beta"]
    assert content["command"] == "vae-train -m beta=0.5,1,4 seed=0,1"
    group = content["groups"][0]
    assert group["settings"] == {"beta": 1.0}
    assert group["metrics"]["test/kl"] == {"mean": 3.25, "std": pytest.approx(0.35355339), "n": 2}
    assert [content["runs"][i]["swept"] for i in group["runs"]] == [{"beta": 1.0}] * 2
    assert content["runs"][0]["command"] == "vae-train beta=1 seed=0"


def test_json_has_no_nan(tmp_path, write_run, measured):
    run = write_run(tmp_path / "a", measured(1, 2), optimizer__lr=float("nan"), beta=float("inf"))
    summary = json.loads((run / "summary.json").read_text()) | {"device": float("-inf")}
    (run / "summary.json").write_text(json.dumps(summary))
    text = json_text(read_sweep([tmp_path]))
    content = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert content["runs"][0]["settings"]["beta"] is None


def test_markdown_shows_hostile_names_as_they_are(tmp_path, write_run, measured):
    write_run(tmp_path / HOSTILE.replace("/", ""), None, "failed", error=f"a|b\n{HOSTILE}")
    write_run(tmp_path / "b", measured(1, 2), beta=2.0)
    text = markdown(read_sweep([tmp_path]), [("picture", "figures/a.png")])
    assert "![picture](figures/a.png)" in text
    prose = text.split("```")[0]
    assert not re.search(r"(?<!\\)<script", prose)
    columns = [
        len(re.findall(r"(?<!\\)\|", line)) for line in prose.splitlines() if line[:1] == "|"
    ]
    assert sorted(set(columns)) == [5, 9]  # two tables, none torn by a | in a cell


class Page(HTMLParser):
    """Tags with their attributes, in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)


def test_the_page_needs_nothing_from_outside(sweep):
    text = html_page(sweep, [("a picture", PNG)])
    page = Page(text)
    sources = [a[key] for _, a in page.tags for key in ("src", "href", "srcset") if key in a]
    assert sources == [s for s in sources if s.startswith("data:image/png;base64,")] != []
    assert not re.search(r"https?:|//\w|@import|url\(", text)
    assert {tag for tag, _ in page.tags} & {"link", "iframe", "object", "base"} == set()
    policies = [a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a]
    assert policies[0].startswith("default-src 'none'")
    everything = "".join(page.texts)
    for wanted in ("vae-train -m beta=0.5,1,4 seed=0,1", "tensorboard --logdir", "failed",
                   "RunFailed: loss is not finite"):  # fmt: skip
        assert wanted in everything


def test_the_page_escapes_what_it_shows(tmp_path, write_run, measured):
    harmless = write_run(tmp_path / "a", measured(1, 2), beta=2.0)
    write_run(tmp_path / HOSTILE.replace("/", ""), None, "failed", (f"x={HOSTILE}",), 1, HOSTILE,
              model__name=HOSTILE)  # fmt: skip
    assert harmless.exists()
    page = Page(html_page(read_sweep([tmp_path]), [(HOSTILE, PNG)]))
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert all(set(attrs) <= {"alt", "src", "class"} for tag, attrs in page.tags if tag == "img")
    shown = "".join(page.texts)
    assert shown.count('alert("1")') >= 3
    assert HOSTILE in shown
