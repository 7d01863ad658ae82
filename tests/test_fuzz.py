"""Command lines and configuration files that nobody would write: one line and exit code 2, or 0."""

import contextlib
import io
import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vae_cli import cli
from vae_cli.config.check import as_container, flatten
from vae_cli.config.settings import GROUPS
from vae_cli.console import UserError
from vae_cli.runs import saved

# derandomised: the same examples everywhere
BOUNDED = settings(
    max_examples=20,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

KEYS = (
    "beta", "epochs", "model", "model.latent_dim", "model.hidden_sizes", "dataset", "optimizer.lr",
    "device", "data_dir", "hydra.run.dir", "hydra/launcher", "experiment", "nowhere", "a.b.c", "",
    "model@x", "dataset.name", "resume", "task", "run", "prior", "posterior", "sweep", "hydra",
)  # fmt: skip
VALUES = (
    "1", "-1", "1.5", "nan", "true", "null", "abc", "[1,2]", "[]", "{a:1}", "'a b'", '"', "'", "\\",
    "${beta}", "${oc.env:X}", "${", "}", "1,2", "range(3)", "choice(1,2)", "glob(*)", "???", "ü",
    "1e999", "0x10", "a=b", "a:b", " ", "\t", "\n", "ae", "digits", "/", "~", "!!python/none",
)  # fmt: skip
PIECES = st.one_of(st.sampled_from(VALUES), st.text(max_size=6))
OVERRIDES = st.builds(
    lambda prefix, key, sign, value: f"{prefix}{key}{sign}{value}",
    st.sampled_from(("", "", "", "+", "++", "~", "-", "--", "@", " ")),
    st.one_of(st.sampled_from(KEYS), st.text(max_size=6)),
    st.sampled_from(("=", "=", "=", "", "==", ":")),
    st.lists(PIECES, max_size=2).map("".join),
).filter(lambda text: "\0" not in text)

# settings of which each can stand beside every other
VALID = st.one_of(
    st.floats(0, 100).map(lambda x: f"beta={x!r}"),
    st.integers(0, 10**9).map(lambda n: f"seed={n}"),
    st.integers(6, 100).map(lambda n: f"epochs={n}"),
    st.floats(1e-6, 1).map(lambda x: f"optimizer.lr={x!r}"),
    st.lists(st.integers(1, 64), max_size=3).map(lambda sizes: f"model.hidden_sizes={sizes}"),
    st.text("ab c,=[]{}'\"ü", max_size=8).map(lambda text: f"data_dir=x{text}"),
    st.sampled_from(
        ("prior=mixture", "objective=iwae", "penalty=sparse", "device=cpu", "ema=null")
    ),
    st.sampled_from(("scheduler=cosine", "beta_schedule=warmup", "beta_schedule=cyclical")),
    st.sampled_from(
        ("likelihood=gaussian", "likelihood=laplace", "dataset=digits", "dataset=mnist")
    ),
)


@pytest.fixture
def started(monkeypatch) -> list[object]:
    """The runs that began: in place of training, and of the folder that Hydra makes."""
    runs: list[object] = []

    def begin(*plan) -> int:
        runs.append(plan)
        return 0

    monkeypatch.setattr(cli, "run_single", begin)
    monkeypatch.setattr(cli, "through_hydra", lambda arguments, job: 0)
    return runs


def answer(words: list[str]) -> tuple[int, str]:
    """The exit code and the lines on standard error of a command line."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.run(words)
    return code, err.getvalue()


@BOUNDED
@given(words=st.lists(OVERRIDES, min_size=1, max_size=3))
def test_any_command_line_is_answered_in_a_line(started, words):
    code, said = answer(words)
    assert code in (0, 2), words
    if code == 2:
        assert said.startswith("vae-train: "), words
        assert len(said.splitlines()) == 1, (words, said)


@BOUNDED
@given(words=st.lists(VALID, max_size=4, unique_by=lambda text: text.partition("=")[0]))
def test_a_valid_command_line_is_accepted(started, words):
    begun = len(started)
    assert answer(words) == (0, ""), words
    assert len(started) == begun + 1
    config, _, _ = started[-1]
    flat = flatten(as_container(config))
    for key, value in (text.split("=", 1) for text in words):
        if key in GROUPS:
            assert getattr(config, key).name == value
        elif key == "data_dir":
            assert config.data_dir == value
        else:
            assert flat[key] == yaml.safe_load(value) or float(value) == flat[key]


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8),
    st.sampled_from(("${beta}", "${oc.env:HOME}", "???", "-", "1e400")),
)  # fmt: skip
NODES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@BOUNDED
@given(data=st.data())
def test_any_value_in_a_saved_configuration_is_read_or_refused(make_config, data):
    plain = as_container(make_config("dataset=digits"))
    place, path = plain, data.draw(st.sampled_from(list(flatten(plain)))).split(".")
    for key in path[: data.draw(st.integers(0, len(path) - 1))]:
        place = place[key]
    place[data.draw(st.sampled_from([*place, "nowhere", 3]))] = data.draw(NODES)
    _read_or_refused(yaml.safe_dump(plain, allow_unicode=True))


@BOUNDED
@given(text=st.one_of(st.text(max_size=60), st.text("ab:-[]{}&*!|>'\"\n \t#%@`?,", max_size=40)))
def test_any_text_as_a_saved_configuration_is_refused(text):
    assert not _read_or_refused(text)


def _read_or_refused(text: str) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
        try:
            saved.saved_config(Path(folder))
        except UserError as error:
            assert "\n" not in str(error)  # noqa: PT017
            return False
        return True
