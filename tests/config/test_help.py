"""Help, docs/settings.md, YAML comments and schemas agree."""

from pathlib import Path

import pytest

import vae_cli.analysis.settings  # noqa: F401  # registers the tasks of vae-eval
from vae_cli.config import help as texts
from vae_cli.config.compose import config_dir
from vae_cli.config.registry import SCHEMAS, node_of
from vae_cli.config.settings import GROUPS, Config
from vae_cli.console import UserError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def pages() -> texts.Pages:
    return texts.Pages("config")


def test_every_setting_has_its_meaning_type_and_range(pages):
    settings = pages.settings()
    assert {key for key, *_ in settings} == set(Config.model_fields) - {*GROUPS, "logger"}
    for (group, name), schema in SCHEMAS.items():
        if (
            group in (*GROUPS, "logger", "task")
            and (config_dir() / group / f"{name}.yaml").exists()
        ):
            of_choice = pages.settings(group, name)
            settings += of_choice
            keys = {
                key.removeprefix(node_of(group, name)).partition(".")[0] for key, *_ in of_choice
            }
            fields = {field.alias or key for key, field in schema.model_fields.items()}
            assert keys == fields - {"name"} if group != "task" else keys <= fields
    for key, _, meaning, limits in [*settings, *texts.Pages("eval").settings()]:
        assert meaning, key
        assert limits, key


def test_an_inherited_setting_keeps_its_meaning_unless_it_has_its_own(pages):
    adam, adamw = ({s[0]: s for s in pages.settings("optimizer", n)} for n in ("adam", "adamw"))
    assert adam["optimizer.lr"] == adamw["optimizer.lr"]
    decays = [choice["optimizer.weight_decay"] for choice in (adam, adamw)]
    assert decays[0][2] != decays[1][2]
    assert decays[1][1] == "0.01"


def test_types_and_ranges_are_said_in_words(pages):
    limits = {key: words for key, _, _, words in pages.settings()}
    assert limits["beta"] == "number >= 0"
    assert limits["ema"] == "number > 0, < 1 | null"
    assert limits["compile"] == "auto | true | false"
    assert limits["precision"] == "fp32 | bf16"
    assert limits["interpolate"] == "list of: whole number | text, at least 2 | null"
    assert "cuda" in limits["device"]
    meanings = {key: words for key, _, words, _ in pages.settings()}
    assert "or skip the update" in meanings["on_nonfinite"]  # its comment takes two lines


def test_help_names_every_group_choice_and_setting(pages):
    text = texts.help_text("config", texts.TRAIN)
    for group in (*GROUPS, "logger", "experiment", "sweep"):
        assert f"\n  {group} " in text
        assert all(path.stem in text for path in (config_dir() / group).glob("*.yaml"))
    for key in set(Config.model_fields) - {*GROUPS, "logger"}:
        assert f"\n  {key}=" in text
    assert "mlp_vae, ae, conv_ae, conv_vae" in text  # the default first
    assert "model.latent_dim=" not in text.replace("as in model.latent_dim=2", "")
    assert max(map(len, text.splitlines())) <= 100


def test_help_lists_the_settings_of_the_choices_that_are_named():
    line = ["model=conv_vae", "beta_schedule=cyclical", "dataset=digits", "sweep=seeds"]
    text = texts.help_text("config", texts.TRAIN, line)
    assert "model.channels=[32,64,128,256,512]" in text
    assert "model.latent_dim=8 " in text  # what this dataset suggests
    assert "beta_schedule.rise=0.5" in text
    assert "(number > 0, <= 1)" in " ".join(text.split())
    assert "optimizer.lr=1e-3" not in text
    with pytest.raises(UserError, match="model=conv: no such model"):
        texts.help_text("config", texts.TRAIN, ["model=conv"])


def test_help_of_vae_eval_lists_the_tasks_and_the_settings_of_one():
    text = texts.help_text("eval", texts.EVAL)
    for path in (config_dir() / "task").glob("*.yaml"):
        assert f"\n  {path.stem} " in text
    assert "run=…" in text
    assert "max_examples" not in text
    assert "max_examples=null" in texts.help_text("eval", texts.EVAL, ["task=nll"])
    assert max(map(len, text.splitlines())) <= 100


def test_settings_of_ones_own_are_listed(tmp_path):
    (tmp_path / "model").mkdir()
    own = "# Mine.\ndefaults: [mlp_vae, _self_]\nhidden_sizes: [11]  # narrow\n"
    (tmp_path / "model" / "tiny.yaml").write_text(own)
    text = texts.help_text("config", texts.TRAIN, ["model=tiny"], str(tmp_path))
    assert "mlp_vae, ae, conv_ae, conv_vae, tiny" in text
    line = "model.hidden_sizes=[11] narrow (list of: whole number >= 1)"
    assert line in " ".join(text.split())


def test_the_page_of_settings_is_up_to_date():
    page = (ROOT / "docs" / "settings.md").read_text()
    assert page == texts.markdown(), "python -m vae_cli.config.help > docs/settings.md"
