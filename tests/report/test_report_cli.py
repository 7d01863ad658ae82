"""The command vae-report, and what a sweep says at its end."""

import json
import subprocess
import sys

import pytest

from vae_cli import report_cli
from vae_cli.report import writing

MISTAKES = [
    ("", "give the folder of a sweep or of runs; vae-report --help shows how"),
    ("nowhere", "nowhere: no such folder"),
    ("empty", "empty: no run in it or below (folders with a config.yaml)"),
    ("sweep --metric elbow", "--metric elbow: no run has it"),
    ("sweep --format xml", "invalid choice: 'xml'"),
    ("sweep --format csv --out x", "--format csv prints and writes nothing: leave out --out"),
    ("sweep --foo", "unrecognized arguments: --foo"),
    ("sweep --out file", "--out file: cannot be written"),
]


@pytest.fixture
def place(sweep_folder, monkeypatch):
    folder = sweep_folder.parent
    (folder / "empty").mkdir()
    (folder / "file").write_text("x")
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(("line", "expected"), MISTAKES, ids=[line for line, _ in MISTAKES])
def test_a_mistake_is_one_clear_line(line, expected, place, capsys):
    before = sorted(place.rglob("*"))
    assert report_cli.run([*line.split(), *(["--no-figures"] if "--out file" in line else [])]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("vae-report: ")
    assert expected in captured.err
    assert captured.err.count("\n") == 1
    assert sorted(place.rglob("*")) == before


def test_files_go_into_the_first_folder(place, capsys):
    assert report_cli.run(["sweep", "--no-figures"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("4 of 6 runs completed")
    for name in ("sweep.csv", "sweep.json", "report.md", "report.html"):
        assert f"  sweep/{name}\n" in out
        assert (place / "sweep" / name).stat().st_size > 500
    assert not (place / "sweep" / "figures").exists()
    first = (place / "sweep" / "sweep.json").read_text()
    assert report_cli.run(["sweep", "--no-figures"]) == 0  # its own files are no runs
    assert (place / "sweep" / "sweep.json").read_text() == first


def test_out_and_a_run_by_itself(place):
    assert report_cli.run(["sweep", "--no-figures", "--out", "a/b"]) == 0
    assert sorted(p.name for p in (place / "a" / "b").iterdir()) == [
        "report.html",
        "report.md",
        "sweep.csv",
        "sweep.json",
    ]
    assert not (place / "sweep" / "sweep.csv").exists()
    run = place / "sweep" / "beta=1,seed=0"
    assert report_cli.run([str(run), "--no-figures"]) == 0
    assert (run / "report" / "report.html").is_file()


@pytest.mark.parametrize(
    ("name", "start"),
    [("table", "4 of 6"), ("csv", "beta,seed,test/elbo"), ("json", "{"), ("markdown", "# Sweep")],
)
def test_a_format_is_printed_and_nothing_written(name, start, place, capsys):
    before = sorted(place.rglob("*"))
    assert report_cli.run(["sweep", "--format", name]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(start)
    assert captured.out.endswith("\n")
    assert captured.err == ""
    assert sorted(place.rglob("*")) == before


def test_pictures_that_need_models_are_forgiven_where_there_are_none(place, capsys):
    assert report_cli.run(["sweep"]) == 0
    captured = capsys.readouterr()
    drawn = {path.name for path in (place / "sweep" / "figures").iterdir()}
    assert drawn == {"rate_distortion.png", "metrics_by_beta.png", "active_units_by_beta.png"}
    assert captured.err.count("could not be drawn") == 2
    page = (place / "sweep" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert "](figures/rate_distortion.png)" in (place / "sweep" / "report.md").read_text()


def test_answers_need_no_torch(place):
    code = (
        "import sys; from vae_cli import report_cli; code = report_cli.run(sys.argv[1:]);"
        "heavy = {'torch', 'matplotlib', 'tensorboard', 'hydra'} & set(sys.modules);"
        "sys.exit(sorted(heavy) or code)"
    )
    for line in ("--help", "--version", "sweep --format json", "sweep --no-figures"):
        command = [sys.executable, "-W", "error", "-c", code, *line.split()]
        done = subprocess.run(command, cwd=place, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_help_names_every_option_and_file(capsys):
    assert report_cli.run(["--help"]) == 0
    text = capsys.readouterr().out
    for name in ("--out", "--format", "--metric", "--no-figures", "sweep.csv", "report.html"):
        assert name in text
    assert max(map(len, text.splitlines())) <= 100


def test_nothing_completed_is_an_answer_too(tmp_path, write_run, capsys):
    write_run(tmp_path / "a", None, "running", epochs=2)
    assert report_cli.run([str(tmp_path), "--no-figures"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("0 of 1 runs completed\n\na run that was killed still says")
    assert "1 not completed:\n  a  running, 2/4\n" in out


def test_version_is_ours(capsys):
    assert report_cli.run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("vae-report 0.")


def test_a_report_at_the_end_of_a_sweep_never_fails(sweep_folder, tmp_path, monkeypatch):
    text = writing.write_report(sweep_folder, jobs=8, figures=False)
    assert "2 of 8 jobs have not begun" in text
    assert "4 of 6 runs completed" in text
    assert str(sweep_folder / "report.html") in text
    nowhere = writing.write_report(tmp_path / "nowhere")
    assert nowhere.startswith("warning: the sweep's report is not whole (UserError")
    assert "\n" not in nowhere
    for error in (OSError("disk full"), KeyboardInterrupt()):

        def fail(*_, error=error):
            raise error

        monkeypatch.setattr(writing, "write_files", fail)
        text = writing.write_report(sweep_folder)
        assert "4 of 6 runs completed" in text
        last = text.splitlines()[-1]
        assert last.startswith(f"warning: the sweep's report is not whole ({type(error).__name__}")


def test_a_job_is_a_line(sweep_folder):
    line = writing.job_line(3, 15, "beta=1,seed=0", sweep_folder / "beta=1,seed=0")
    assert line == (
        "job 3/15 beta=1,seed=0: test elbo -24.000, reconstruction 21.000, kl 3.000, 1.5 s"
    )
    failed = writing.job_line(5, 6, "beta=4,seed=0", sweep_folder / "beta=4,seed=0")
    assert failed == "job 5/6 beta=4,seed=0: failed, 1/4: RunFailed: loss is not finite"
    interrupted = writing.job_line(6, 6, "beta=4", sweep_folder / "beta=4,seed=1")
    assert interrupted == "job 6/6 beta=4: interrupted, 2/4"
    nothing = writing.job_line(1, 1, "", sweep_folder / "x")
    assert nothing.startswith("job 1/1: left nothing that can be read")


def test_a_whole_sweep_ends_in_its_answer(vae_train, tmp_path):
    tiny = ("dataset=digits", "epochs=1", "model.hidden_sizes=[16]", "figures=none")
    done = vae_train("-m", "optimizer=sgd", "optimizer.lr=1e-3,1e9", "seed=0,1", *tiny,
                     "hydra.sweep.dir=out")  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "job 1/4 lr=0.001,seed=0: test elbo -" in done.stdout
    assert "job 4/4 lr=1e+09,seed=1: failed, 0/1: RunFailed" in done.stdout
    assert "2 of 4 runs completed; best test/elbo" in done.stdout
    assert "Traceback" not in done.stderr
    out = tmp_path / "out"
    drawn = {path.name for path in (out / "figures").iterdir()}
    content = json.loads((out / "sweep.json").read_text())
    assert content["swept"] == ["optimizer.lr"]
    assert [run["status"] for run in content["runs"]] == ["completed"] * 2 + ["failed"] * 2
    assert {run["swept"]["optimizer.lr"] for run in content["runs"]} == {1e-3, 1e9}
    assert drawn == set()  # a single value has numbers: nothing to compare
    assert (out / "report.html").is_file()
    summary = json.loads(next(out.glob("*seed=0/summary.json")).read_text())
    assert summary["swept"] == ["optimizer.lr", "seed"]


def test_a_job_that_could_not_begin_stands_in_the_table(vae_train, tmp_path):
    tiny = ("epochs=1", "model.hidden_sizes=[16]", "figures=none", "data_dir=/dev/null/x")
    done = vae_train("-m", "dataset=digits,mnist", *tiny, "hydra.sweep.dir=out")
    assert done.returncode == 1, done.stderr
    assert "job 2/2 dataset=mnist: failed" in done.stdout
    rows = (tmp_path / "out" / "sweep.csv").read_text().splitlines()
    assert rows[1].startswith("digits,0,-")
    assert ",failed," in rows[2]
    assert "data_dir" in rows[2]
