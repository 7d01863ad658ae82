"""What TensorBoard itself says of a run folder, over its own HTTP API."""

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vae_cli import training
from vae_cli.run import read_summary

EPOCHS = 3
SWEPT = ("seed", "beta")  # as a sweep would say


@pytest.fixture(scope="module")
def logdir(tmp_path_factory, make_config) -> Path:
    """A finished run and one that was resumed, side by side."""
    logdir = tmp_path_factory.mktemp("tb")
    common = ("dataset=digits", "log_every=2", "batch_size=128", "model.latent_dim=2")
    whole = make_config(*common, "beta=4", f"epochs={EPOCHS}")
    training.train(whole, logdir / "whole", SWEPT)
    config = make_config(*common, "epochs=1")
    training.train(config, logdir / "resumed", SWEPT)
    again = replace(config, epochs=EPOCHS, resume=str(logdir / "resumed"))
    training.train(again, logdir / "resumed")
    return logdir


@pytest.fixture(scope="module")
def server(logdir: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "tensorboard.main",
        "--logdir",
        str(logdir),
        "--port",
        str(port),
    ]
    process = subprocess.Popen([*command, "--host", "127.0.0.1"], stderr=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}/data"
    finally:
        process.terminate()
        process.wait()


def ask(server: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """JSON from the server, once it has started and found both runs."""
    deadline = time.monotonic() + 60
    while True:
        try:
            data = None if body is None else json.dumps(body).encode()
            request = urllib.request.Request(
                f"{server}/{path}", data, {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=10) as answer:
                found = json.load(answer)
            if path != "runs" or len(found) == 2:
                return found
        except OSError:
            pass
        assert time.monotonic() < deadline, "TensorBoard did not answer"
        time.sleep(0.2)


def test_there_is_one_run_a_folder(server):
    assert sorted(ask(server, "runs")) == ["resumed", "whole"]


def test_scalars_have_our_names(server):
    ask(server, "runs")
    for tags in ask(server, "plugin/scalars/tags").values():
        expected = {
            f"{split}/{name}"
            for split in ("train", "val", "test")
            for name in ("loss", "reconstruction", "kl", "elbo")
        }
        expected |= {
            "train/grad_norm",
            "schedule/beta",
            "schedule/lr",
            "perf/examples_per_second",
            "val/active_units",
            "test/active_units",
        }
        assert expected == set(tags)


def test_a_resumed_run_has_every_point_once(server):
    ask(server, "runs")
    steps = {}
    for run in ("whole", "resumed"):
        for tag in ("train/loss", "val/kl"):
            points = ask(server, f"plugin/scalars/scalars?run={run}&tag={tag.replace('/', '%2F')}")
            steps[run, tag] = [point[1] for point in points]
    assert steps["whole", "val/kl"] == [11, 22, 33]
    assert steps["resumed", "val/kl"] == steps["whole", "val/kl"]
    assert steps["resumed", "train/loss"] == steps["whole", "train/loss"] == list(range(2, 34, 2))


def test_hparams_show_one_row_a_run(server, logdir):
    ask(server, "runs")
    experiment = ask(server, "plugin/hparams/experiment", {"experimentName": ""})
    columns = {info["name"] for info in experiment["hparamInfos"]}
    assert {"beta", "optimizer.lr", "model.latent_dim", "model.name"} <= columns
    assert "device" not in columns
    # the swept settings stand first, also after one of the runs was resumed
    assert [info["name"] for info in experiment["hparamInfos"]][:2] == ["beta", "seed"]
    assert {info["name"] for info in experiment["hparamInfos"] if info["differs"]} == set(SWEPT)
    metrics = [info["name"]["tag"] for info in experiment["metricInfos"]]
    assert metrics[:3] == ["test/elbo", "test/reconstruction", "test/kl"]
    body = {
        "experimentName": "",
        "allowedStatuses": [],
        "colParams": [],
        "startIndex": 0,
        "sliceSize": 9,
    }
    body["allowedStatuses"] = [
        "STATUS_SUCCESS",
        "STATUS_RUNNING",
        "STATUS_UNKNOWN",
        "STATUS_FAILURE",
    ]
    body["colParams"] = [{"metric": {"tag": "test/elbo", "group": ""}}]
    groups = ask(server, "plugin/hparams/session_groups", body)["sessionGroups"]
    rows = {group["sessions"][0]["name"]: group for group in groups}
    assert sorted(rows) == ["resumed", "whole"]
    assert {name: row["hparams"]["beta"] for name, row in rows.items()} == {
        "whole": 4,
        "resumed": 1,
    }
    assert all(len(row["sessions"]) == 1 for row in rows.values())
    assert all(row["sessions"][0]["status"] == "STATUS_SUCCESS" for row in rows.values())
    assert read_summary(logdir / "resumed")["swept"] == list(SWEPT)
    metrics = rows["whole"]["metricValues"]
    assert any(m["name"]["tag"] == "test/elbo" and m["value"] < 0 for m in metrics)


def test_the_custom_chart_pictures_histogram_and_text_are_there(server):
    ask(server, "runs")
    layout = ask(server, "plugin/custom_scalars/layout")
    chart = layout["category"][0]["chart"][0]
    assert chart["multiline"]["tag"] == ["train/reconstruction", "train/kl"]
    assert {"reconstructions", "samples"} <= set(ask(server, "plugin/images/tags")["whole"])
    images = set(ask(server, "plugin/images/tags")["whole"])
    assert {"figures/manifold", "figures/kl_bars"} <= images
    assert "latent/kl_by_dimension" in ask(server, "plugin/histograms/tags")["whole"]
    assert "config/text_summary" in ask(server, "plugin/text/tags")["whole"]


def test_the_projector_shows_the_codes_of_both_runs(server):
    ask(server, "runs")
    assert sorted(ask(server, "plugin/projector/runs")) == ["resumed", "whole"]
    (embedding,) = ask(server, "plugin/projector/info?run=whole")["embeddings"]
    assert embedding["tensorName"] == "test codes"
    assert embedding["tensorShape"] == [297, 3]
    for part in ("metadata", "sprite_image"):
        path = f"plugin/projector/{part}?run=whole&name=test%20codes"
        with urllib.request.urlopen(f"{server}/{path}", timeout=10) as answer:
            assert answer.status == 200
            assert len(answer.read()) > 500
