"""Schemas of the datasets."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from vae_cli.rules import value
from vae_cli.schema.registry import Component, component


class Binarize(Enum):
    none = "none"
    threshold = "threshold"
    dynamic = "dynamic"


@dataclass
class SuggestedConfig:
    """Network sizes that fit a dataset; the models' YAML refers to them."""

    hidden_sizes: list[int] = value("model.hidden_sizes unless given", at_least=1)
    latent_dim: int = value("model.latent_dim unless given", at_least=1)


@dataclass
class DatasetConfig(Component):
    kind: ClassVar[str | None]  # "image", "curve"; None: known only when loaded
    unit_interval: ClassVar[bool | None]  # are all values in [0, 1]? None: known only when loaded
    val_size: int | None = value(
        "examples carved from the training set for validation; null: a tenth, at most 10,000",
        at_least=0,
    )
    suggested: SuggestedConfig = value("network sizes that fit this dataset")


@dataclass
class ImagesConfig(DatasetConfig):
    kind: ClassVar[str | None] = "image"
    unit_interval: ClassVar[bool | None] = True
    binarize: Binarize = value("none | threshold (at 0.5) | dynamic (drawn anew at every look)")


@component("dataset", "mnist", "fashion_mnist")
@dataclass
class IdxImagesConfig(ImagesConfig):
    builds: ClassVar[str] = "vae_cli.data.mnist:load"


@component("dataset", "digits")
@dataclass
class DigitsConfig(ImagesConfig):
    builds: ClassVar[str] = "vae_cli.data.digits:load"
    size: int | None = value("height and width to resize to; null: the original 8", at_least=2)
    test_size: int = value("examples held out for the test", at_least=1)


@component("dataset", "image_folder")
@dataclass
class ImageFolderConfig(ImagesConfig):
    builds: ClassVar[str] = "vae_cli.data.image_folder:load"
    path: str = value("the folder; images in its subfolders count too")
    size: int = value("height and width: shorter side resized, centre cropped", at_least=2)
    channels: int = value("1: grey, 3: RGB", at_least=1, at_most=3)
    test_size: int | None = value(
        "images held out for the test; null: a tenth, at most 10,000", at_least=1
    )
    in_memory: bool | str = value(
        "true: decoded once and kept | false: decoded as needed | auto: kept where they fit",
        pattern="auto",
        expected="auto, true or false",
    )


class Layout(Enum):
    auto = "auto"
    chw = "chw"
    hwc = "hwc"
    vector = "vector"


class Scale(Enum):
    none = "none"
    minmax = "minmax"
    standard = "standard"


@component("dataset", "arrays")
@dataclass
class ArraysConfig(DatasetConfig):
    builds: ClassVar[str] = "vae_cli.data.arrays:load"
    kind: ClassVar[str | None] = None
    unit_interval: ClassVar[bool | None] = None
    train: str = value("a .npy, .npz, .safetensors or .csv file of the training examples")
    test: str | None = value("a file of the test examples; null: test_size of train's")
    test_size: int | None = value(
        "examples held out for the test where there is no file; null: a tenth, at most 10,000",
        at_least=1,
    )
    key: str | None = value("which array of a .npz or .safetensors; null: the only one, or x")
    labels: str | None = value(
        "which array (a .csv: column) has labels; null: y, labels or label, if there"
    )
    layout: Layout = value("axes of an example: auto | chw | hwc | vector (flattened)")
    scale: Scale = value(
        "none | minmax (to 0 to 1) | standard (mean 0, deviation 1), as the training part has it"
    )
    binarize: Binarize = value("none | threshold (at 0.5) | dynamic (drawn anew at every look)")


class Quantity(Enum):
    log_density = "log_density"
    density = "density"


@component("dataset", "beta_pdf")
@dataclass
class BetaPDFConfig(DatasetConfig):
    builds: ClassVar[str] = "vae_cli.data.beta_pdf:load"
    kind: ClassVar[str | None] = "curve"
    unit_interval: ClassVar[bool | None] = False
    num_curves: int = value("curves in the training set, before val_size", at_least=1)
    test_size: int = value("curves in the test set, drawn from test_seed", at_least=1)
    num_points: int = value("points on a curve", at_least=2)
    x_min: float = value("first point of the grid", above=0, below=1)
    x_max: float = value("last point of the grid", above=0, below=1)
    max_parameter: float = value("a and b are drawn uniformly from (0, max_parameter)", above=0)
    quantity: Quantity = value("log_density | density")
    seed: int = value("seed of the training curves", at_least=0)
    test_seed: int = value("seed of the test curves", at_least=0)
