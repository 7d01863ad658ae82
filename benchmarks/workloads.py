"""The works: network, data and settings, which are equal for every contender of a work."""

from dataclasses import dataclass, replace

MLP_CONTENDERS = (
    "tutorial",
    "pythae",
    "jax",
    "ours",
    "ours, plain",
    "ours bf16",
    "ours, quiet",
    "floor",
    "floor bf16",
)
# measured in the first round only: they vary little, or answer a side question
SELDOM = ("ours, quiet", "floor", "floor bf16")
SELDOM_ROUNDS = 1
SMALL_CONTENDERS = ("tutorial", "jax", "ours", "ours, plain")
CONV_CONTENDERS = ("tutorial", "ours", "ours, plain", "ours bf16", "floor", "floor bf16")
MNIST_EXAMPLES = 60_000


@dataclass(frozen=True)
class Work:
    """One training, small enough to be timed. Adam with torch's other defaults, seed = round."""

    name: str
    model: str  # mlp | conv
    widths: tuple[int, ...]  # hidden sizes, or channels of the stride-2 convolutions
    latent_dim: int
    batch_size: int = 128
    examples: int = MNIST_EXAMPLES
    test_examples: int = 10_000
    shape: tuple[int, int, int] = (1, 28, 28)
    data: str = "mnist"  # mnist | synthetic
    lr: float = 1e-3
    epochs: int = 2  # the first one warms up and is not timed
    contenders: tuple[str, ...] = MLP_CONTENDERS
    rounds: int = 5

    @property
    def steps(self) -> int:
        """Number of updates in an epoch; the last batch may be smaller."""
        return -(-self.examples // self.batch_size)


MLP = Work("mlp", "mlp", (400,), 20, examples=20_000)  # a third of MNIST: all in ten minutes
IWAE = replace(
    MLP,
    name="iwae",  # the net and the batch of Burda et al. 2016, with one code an example
    widths=(200,),
    latent_dim=50,
    batch_size=20,
    examples=10_000,
    test_examples=2_000,
    contenders=SMALL_CONTENDERS,
)
DIGITS = replace(
    IWAE,
    name="digits",
    widths=(128,),
    latent_dim=8,
    batch_size=64,
    examples=12_800,
    shape=(1, 8, 8),
    data="synthetic",
    epochs=4,
)
CONV = Work(
    "conv",
    "conv",
    (32, 64, 128, 256, 512),
    20,
    examples=12 * 128,
    test_examples=1_000,
    contenders=CONV_CONTENDERS,
    rounds=2,
)
CONV64 = replace(
    CONV,
    name="conv64",
    shape=(3, 64, 64),
    latent_dim=64,
    data="synthetic",
    batch_size=64,
    examples=6 * 64,
    test_examples=64,
    rounds=1,
)


def works(quick: bool) -> tuple[Work, ...]:
    """Return the works that are compared. quick: a part of the data, for about a minute."""
    if not quick:
        return MLP, IWAE, DIGITS, CONV, CONV64
    slow = ("pythae", "ours, plain", "ours, quiet", "floor bf16")
    brief = tuple(name for name in MLP_CONTENDERS if name not in slow)
    brief_conv = ("tutorial", "ours", "ours bf16")
    return (
        replace(MLP, examples=100 * 128, test_examples=2_000, rounds=1, contenders=brief),
        replace(CONV, examples=3 * 128, test_examples=200, rounds=1, contenders=brief_conv),
    )


def growth() -> tuple[Work, ...]:
    """Return works that differ from the MLP on 12,800 images in one thing each."""
    base = replace(
        MLP, name="growth", data="synthetic", examples=12_800, test_examples=100, rounds=1
    )
    base = replace(base, contenders=("ours", "floor"))
    changes = (
        [{"batch_size": size} for size in (32, 128, 512, 2048)]
        + [{"latent_dim": 200}]
        + [{"shape": (1, 56, 56)}]
        + [{"examples": 25_600}]
    )
    return tuple(
        replace(base, name="growth " + " ".join(f"{k}={v}" for k, v in change.items()), **change)
        for change in changes
    )
