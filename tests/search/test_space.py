import optuna
import pytest

from vae_cli.errors import UserError
from vae_cli.planning import parse_overrides
from vae_cli.search.space import Dimension, dimension


def read(text: str) -> Dimension:
    (override,) = parse_overrides([text])
    return dimension(override)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lr=interval(1e-4,1e-2)", Dimension("lr", 1e-4, 1e-2)),
        ("lr=tag(log,interval(1e-4,1e-2))", Dimension("lr", 1e-4, 1e-2, log=True)),
        ("z=int(interval(2,32))", Dimension("z", 2, 32)),
        ("z=int(tag(log,interval(2,32)))", Dimension("z", 2, 32, log=True)),
        ("z=range(2,33,2)", Dimension("z", 2, 32, step=2)),
        ("z=range(1,9)", Dimension("z", 1, 8, step=1)),  # the end excluded, as in a grid
        ("b=range(0.5,2.1,0.5)", Dimension("b", 0.5, 2.0, step=0.5)),
        ("optimizer=adam,sgd", Dimension("optimizer", choices=("adam", "sgd"))),
        ("h=choice([4,4],[8])", Dimension("h", choices=("[4,4]", "[8]"))),
        ("p='a b',c", Dimension("p", choices=("'a b'", "c"))),
    ],
)
def test_ranges_of_the_override_grammar(text, expected):
    assert read(text) == expected


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("lr=interval(2,1)", "lr=interval(2,1): the lower end comes first"),
        ("lr=tag(log,interval(0,1))", "a logarithmic range must be > 0"),
        ("lr=tag(logg,interval(1,2))", "no such tag logg; there is log"),
        ("z=range(5,5)", "z=range(5,5): an empty range"),
    ],
)
def test_ranges_that_cannot_be(text, line):
    with pytest.raises(UserError) as caught:
        read(text)
    assert line in str(caught.value)


def test_what_is_drawn_is_typed_and_drawn_again_the_same():
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    texts = (
        "lr=tag(log,interval(1e-4,1e-2))",
        "z=range(2,33,2)",
        "h=[4],[8]",
        "k=int(interval(1,3))",
    )
    space = [read(text) for text in texts]
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    for _ in range(20):
        trial = study.ask()
        lr, z, h, k = (item.suggest(trial) for item in space)
        assert 1e-4 <= float(lr) <= 1e-2
        assert int(z) in range(2, 33, 2)
        assert h in ("[4]", "[8]")
        assert int(k) in (1, 2, 3)
        again = optuna.Trial(study, trial._trial_id)
        assert [item.suggest(again) for item in space] == [lr, z, h, k]
