"""Run folders from a stranger: what they plant is refused or left out before anything is done."""

import shutil

import pytest

from benchmarks import hostile
from vae_cli import checkpoint, cli, load_run, planning, resuming, training
from vae_cli.errors import UserError

# what is planted -> what the one line says
REFUSED = {
    "pickle of Hydra": "loads a pickle, which can run code",
    "interpolation in the overrides": "trained with other settings",
    "interpolation in config.yaml": "data_dir=${oc.env:VAE_TEST_SECRET}: must be a plain value",
    "object in config.yaml": "could not determine a constructor",
    "target in config.yaml": "model._target_: no such setting",
    "a billion aliases in config.yaml": "holds a YAML alias",
    "logs that are links": "is a link that leads out of the run folder",
    "checkpoints that are a link": "is a link that leads out of the run folder",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, make_config):
    folder = tmp_path_factory.mktemp("finished") / "run"
    training.train(make_config("dataset=digits", "figures=none", "epochs=2"), folder)
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "overrides.yaml").write_text("- dataset=digits\n- figures=none\n")
    (folder / "train.log").touch()
    return folder


@pytest.fixture
def run(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_planted_is_refused_in_a_line(name, run, tmp_path, monkeypatch):
    monkeypatch.setenv("VAE_TEST_SECRET", "do-not-tell")
    arguments = hostile.PLANTS[name](run, tmp_path / "marker")
    with pytest.raises(UserError) as refused:
        planning.plan(cli._parser().parse_args(arguments))
    line = str(refused.value)
    assert REFUSED[name] in line
    assert "\n" not in line
    assert "do-not-tell" not in line
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("name", ["callback in the overrides", "log handler in the overrides"])
def test_settings_of_hydra_are_left_out(name, run, tmp_path):
    arguments = hostile.PLANTS[name](run, tmp_path / "marker")
    planned = planning.plan(cli._parser().parse_args(arguments))
    keys = [text.partition("=")[0] for text in planned.arguments]
    assert keys == ["hydra.run.dir", "hydra.output_subdir"]  # ours


def test_every_plant_is_tested():
    elsewhere = {"pickle in a checkpoint", "pickle in an npz"}  # test_checkpoint, test_arrays
    here = {*REFUSED, "callback in the overrides", "log handler in the overrides"}
    here |= {"checkpoints of 8 TiB", "pickle as a checkpoint"}
    assert here | elsewhere == set(hostile.PLANTS)


@pytest.mark.parametrize("name", ["checkpoints of 8 TiB", "pickle as a checkpoint"])
def test_planted_checkpoints_are_refused(name, run, tmp_path):
    hostile.PLANTS[name](run, tmp_path / "marker")
    with pytest.raises(checkpoint.Damaged, match="there is no whole checkpoint"):
        checkpoint.load_newest(run / "checkpoints")
    assert not (tmp_path / "marker").exists()


def test_a_link_that_stays_inside_and_a_linked_run_folder_are_followed(run, tmp_path):
    (run / "checkpoints" / "copy.ckpt").symlink_to("last.ckpt")
    (tmp_path / "alias").symlink_to(run)
    resuming.refuse_links_out(run)
    resuming.refuse_links_out(tmp_path / "alias")
    assert load_run(tmp_path / "alias").epoch == 2


def test_a_trained_run_is_not_read_through_a_link(run, tmp_path):
    shutil.move(run / "model.safetensors", tmp_path)
    (run / "model.safetensors").symlink_to(tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="leads out of the run folder"):
        load_run(run)


def test_damaged_weights_are_replaced_by_the_next_best_and_named(run, capsys):
    weights = load_run(run).model.state_dict()
    (run / "model.safetensors").write_bytes(b"damaged")
    again = load_run(run).model.state_dict()
    assert all(weights[name].equal(again[name]) for name in weights)
    assert "model.safetensors is damaged" in capsys.readouterr().err
    (run / "checkpoints" / "best.ckpt").write_bytes(b"damaged")
    assert load_run(run).epoch == 2
    said = capsys.readouterr().err
    assert "best.ckpt is damaged: its content does not match its checksum; last.ckpt is" in said


def test_a_config_that_promises_a_petabyte_is_compared_before_it_is_built(run):
    path = run / "config.yaml"
    path.write_text(path.read_text().replace("- 128", f"- {1 << 40}"))
    with pytest.raises(UserError, match="do not fit the model"):
        load_run(run)


@pytest.mark.parametrize("text", ["- [", "a: 1", "- 3\n- beta=", "\0", "- " + "x" * (1 << 20)])
def test_broken_overrides_are_one_line(run, text):
    (run / ".hydra" / "overrides.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        planning.plan(cli._parser().parse_args([f"resume={run}"]))
    assert "\n" not in str(error.value)
