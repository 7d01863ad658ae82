"""Command lines and configuration files that nobody would write: one line and exit code 2, or 0."""

import contextlib
import io
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from vae_cli import cli, resuming
from vae_cli.checking import as_container, flatten, typed
from vae_cli.errors import UserError

# derandomised: the same examples everywhere
BOUNDED = settings(
    max_examples=25,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

KEYS = (
    "beta", "epochs", "model", "model.latent_dim", "model.hidden_sizes", "dataset", "optimizer.lr",
    "device", "data_dir", "hydra.run.dir", "hydra/launcher", "experiment", "nowhere", "a.b.c", "",
    "model@x", "dataset.name", "resume", "task", "run",
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


@pytest.fixture
def nothing_starts(monkeypatch):
    """What would train answers 0; completion and Hydra's own output are left as they are."""
    monkeypatch.setattr(cli, "_start", lambda planned, argv: 0)
    monkeypatch.setattr(cli, "_hydra", lambda argv, job: 0)


@BOUNDED
@given(words=st.lists(OVERRIDES, min_size=1, max_size=3))
def test_any_command_line_is_answered_in_a_line(nothing_starts, words):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.run(words)
    assert code in (0, 2), words
    said = err.getvalue()
    if code == 2:
        assert said.startswith("vae-train: "), words
        assert len(said.splitlines()) == 1, (words, said)
    else:
        assert said == "", words


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
    _read_or_refused(OmegaConf.to_yaml(OmegaConf.create(plain, flags={"allow_objects": True})))


@BOUNDED
@given(text=st.one_of(st.text(max_size=60), st.text("ab:-[]{}&*!|>'\"\n \t#%@`?,", max_size=40)))
def test_any_text_as_a_saved_configuration_is_refused(text):
    assert not _read_or_refused(text)


def _read_or_refused(text: str) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
        try:
            typed(resuming.saved_config(Path(folder)))
        except UserError as error:
            assert "\n" not in str(error)  # noqa: PT017
            return False
        return True
