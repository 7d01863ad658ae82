import json
import re
import time

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from vae_cli.runs import saved
from vae_cli.runs.folder import Run


@pytest.fixture
def config(make_config):
    return make_config("dataset=digits")


def events(folder):
    return EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()


@pytest.mark.parametrize("kept", [0, 3])
def test_a_run_that_goes_on_has_every_point_once(config, tmp_path, kept):
    first = Run(tmp_path, config)
    for step in range(6):
        first.log_steps(step, {"x": step / 2})
    first.loggers[
        "tensorboard"
    ].flush()  # killed after this; its checkpoint was written at step `kept`
    (killed,) = tmp_path.glob("events.*")
    killed.write_bytes(killed.read_bytes() + killed.read_bytes()[-30:-10])  # half a record
    time.sleep(1)  # TensorBoard reads the files in the order of the time in their names
    again = Run(tmp_path, config, epoch=1, step=kept)
    for step in range(kept + 1 if kept else 0, 5):
        again.log_steps(step, {"x": step / 2})
    again.close("completed")
    points = [(event.step, event.value) for event in events(tmp_path).Scalars("x")]
    assert points == [(step, step / 2) for step in range(5)]
    first.close("failed")


def test_a_run_is_one_row_of_hparams_with_the_swept_settings_first(config, tmp_path):
    def rows():
        contents = events(tmp_path).PluginTagToContent("hparams")
        return {k.split("/")[-1]: HParamsPluginData.FromString(v) for k, v in contents.items()}

    swept = ["model.hidden_sizes", "seed", "device"]
    Run(tmp_path, config, swept=swept).close("interrupted")
    assert set(rows()) == {"experiment", "session_start_info"}  # it runs, for all we know
    time.sleep(1.1)  # TensorBoard names a file by the second, then by a number as a text: 10 < 9
    run = Run(tmp_path, config, step=3)  # and goes on as one of its sweep
    run.log_image("picture", torch.zeros(3, 4, 6, dtype=torch.uint8), 1)
    run.log_histogram("some", torch.tensor([0.0, 1.5, -2.0, float("nan"), float("inf")]), 1)
    run.close("completed")
    columns = rows()["experiment"].experiment.hparam_infos
    assert {info.name for info in columns if info.differs} == set(swept)
    values = rows()["session_start_info"].session_start_info.hparams
    assert (values["beta"].number_value, "log_every" in values) == (1, False)
    assert json.loads(values["model.hidden_sizes"].string_value) == config.model.hidden_sizes
    assert "session_end_info" in rows()
    read = events(tmp_path)
    assert read.Images("picture")[0].width == 6
    assert read.Histograms("some")[0].histogram_value.num == 3
    layout = read.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    for pair in ((b"train/kl", b"val/kl"), (b"train/loss", b"val/loss")):  # in one chart
        assert re.search(b"[^a-z/]+".join(pair), layout)
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"checkpoints"}


def test_a_row_of_hparams_shows_what_a_resumed_run_became(config, tmp_path):
    first = Run(tmp_path, config.model_copy(update={"epochs": 2}))
    first.log_steps(1, {"train/loss": 7.0})
    first.close("completed")
    time.sleep(1.1)  # TensorBoard names a file by the second
    Run(tmp_path, config.model_copy(update={"epochs": 5}), epoch=2, step=10).close("completed")
    content = events(tmp_path).PluginTagToContent("hparams")["_hparams_/session_start_info"]
    row = HParamsPluginData.FromString(content).session_start_info.hparams
    assert row["epochs"].number_value == 5
    assert [point.value for point in events(tmp_path).Scalars("train/loss")] == [7.0]


def test_a_row_of_hparams_begins_with_data_and_model_and_has_name_and_tags(config, tmp_path):
    for folder, given in (("plain", {}), ("named", {"name": "first", "tags": ["a", "b"]})):
        Run(tmp_path / folder, config.model_copy(update=given)).close("completed")
        contents = events(tmp_path / folder).PluginTagToContent("hparams")
        columns = HParamsPluginData.FromString(contents["_hparams_/experiment"]).experiment
        first = {info.name for info in columns.hparam_infos if info.differs}
        assert first == {"dataset.name", "model.name"}
        row = HParamsPluginData.FromString(contents["_hparams_/session_start_info"])
        hparams = row.session_start_info.hparams
        shown = {key: hparams[key].string_value for key in ("name", "tags") if key in hparams}
        assert shown == ({"name": "first", "tags": '["a", "b"]'} if given else {})
        assert saved.read_summary(tmp_path / folder)["tags"] == given.get("tags", [])
