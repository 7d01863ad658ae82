import pytest

from vae_cli.identity import CHANGEABLE, EXTENDABLE, INCIDENTAL, differing_keys, identity


def test_every_setting_says_itself_of_which_kind_it_is():
    assert {"device", "figures", "resume", "log_every", "compile", "deterministic"} <= INCIDENTAL
    assert frozenset({"epochs", "patience", "on_nonfinite"}) == EXTENDABLE
    assert CHANGEABLE == INCIDENTAL | EXTENDABLE
    assert not {"beta", "seed", "batch_size", "optimizer.lr", "dataset.val_size"} & CHANGEABLE


def test_an_identity_is_the_resolved_settings_however_they_are_given(make_config):
    assert identity(make_config("beta=1")) == identity(make_config())
    assert identity(make_config("beta=4.0")) == identity(make_config("beta=4"))
    with_preset = make_config("experiment=vae_2d")
    assert identity(with_preset) == identity(make_config("experiment=vae_2d", "model.latent_dim=2"))


@pytest.mark.parametrize(
    ("override", "same"),
    [
        ("device=cpu", True),
        ("figures=none", True),
        ("log_every=7", True),
        ("beta=4", False),
        ("epochs=3", False),
        ("optimizer.lr=0.1", False),
        ("optimizer=sgd", False),
        ("precision=bf16", False),
    ],
)
def test_where_and_how_is_no_part_of_it(make_config, override, same):
    assert (identity(make_config(override)) == identity(make_config())) is same


def test_differing_keys_names_what_may_not_change(make_config):
    before, after = make_config(), make_config("beta=4", "epochs=3", "figures=none")
    assert differing_keys(before, after) == ["beta: 1.0, now 4.0"]
