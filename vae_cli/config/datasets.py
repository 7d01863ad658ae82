"""Schemas of the datasets."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from vae_cli.config.registry import PLACE, Component, Schema, register

if TYPE_CHECKING:
    from vae_cli.config.settings import Config

Binarize = Literal["none", "threshold", "dynamic"]


class SuggestedConfig(Schema):
    """Network sizes that fit a dataset; the models' YAML refers to them."""

    hidden_sizes: list[Annotated[int, Field(ge=1)]]
    latent_dim: int = Field(ge=1)


class DatasetConfig(Component):
    kind: ClassVar[str | None]  # "image", "curve"; None: known only when loaded
    unit_interval: ClassVar[bool | None]  # are all values in [0, 1]? None: known only when loaded
    val_size: int | None = Field(ge=0)
    suggested: SuggestedConfig


class ImagesConfig(DatasetConfig):
    kind: ClassVar[str | None] = "image"
    unit_interval: ClassVar[bool | None] = True
    binarize: Binarize


@register("dataset", "mnist", "fashion_mnist", builds="vae_cli.data.builtin:load_mnist")
class IdxImagesConfig(ImagesConfig):
    """No settings of its own."""


@register("dataset", "digits", builds="vae_cli.data.builtin:load_digits")
class DigitsConfig(ImagesConfig):
    size: int | None = Field(ge=2)
    test_size: int = Field(ge=1)


# degrees after which a turned shape looks alike
TURNS = {"square": 90, "ellipse": 180, "heart": 360}


@register("dataset", "shapes", builds="vae_cli.data.shapes:load")
class ShapesConfig(ImagesConfig):
    size: int = Field(ge=8)
    shapes: list[Literal["square", "ellipse", "heart"]] = Field(min_length=1)
    positions: int = Field(ge=1)
    scales: int = Field(ge=1)
    min_scale: float = Field(gt=0, lt=1)
    rotations: int = Field(ge=1)
    max_rotation: float = Field(gt=0, le=360)
    test_size: int | None = Field(ge=1)

    def problems(self, config: "Config") -> Iterator[str]:
        if len(set(self.shapes)) < len(self.shapes):
            yield f"dataset.shapes={self.shapes}: must name each shape once"
        most = min(TURNS[shape] for shape in self.shapes)
        if self.max_rotation > most:
            yield (
                f"dataset.max_rotation={self.max_rotation:g}: must be <= {most}, because one of"
                f" {', '.join(self.shapes)} looks alike after {most} degrees"
            )


@register("dataset", "image_folder", builds="vae_cli.data.images:load")
class ImageFolderConfig(ImagesConfig):
    path: Annotated[str, PLACE]
    size: int = Field(ge=2)
    channels: Literal[1, 3]
    test_size: int | None = Field(ge=1)
    in_memory: bool | Literal["auto"]


@register("dataset", "arrays", builds="vae_cli.data.arrays:load")
class ArraysConfig(DatasetConfig):
    kind: ClassVar[str | None] = None
    unit_interval: ClassVar[bool | None] = None
    train: Annotated[str, PLACE]
    test: Annotated[str | None, PLACE]
    test_size: int | None = Field(ge=1)
    key: str | None
    labels: str | None
    header: bool | Literal["auto"]
    columns: list[str | int] | None = Field(min_length=1)
    shape: list[Annotated[int, Field(ge=1)]] | None = Field(min_length=1, max_length=3)
    layout: Literal["auto", "chw", "hwc", "vector"]
    scale: Literal["none", "minmax", "standard"]
    binarize: Binarize

    def problems(self, config: "Config") -> Iterator[str]:
        if self.test and self.test_size is not None:
            yield (
                f"dataset.test_size={self.test_size}: the test examples come from"
                f" dataset.test={self.test}; give one of the two"
            )
        table = self.train.lower().endswith(".csv")
        if not table and (self.columns is not None or self.header != "auto"):
            yield f"dataset.train={self.train}: only a .csv file has dataset.columns and .header"
        if table and self.key is not None:
            yield f"dataset.key={self.key}: a .csv file has one table; use dataset.columns"
        if self.shape is not None and self.layout == "vector":
            yield "dataset.layout=vector: has no effect beside dataset.shape; give one of the two"


@register("dataset", "beta_pdf", builds="vae_cli.data.builtin:load_beta_pdf")
class BetaPDFConfig(DatasetConfig):
    kind: ClassVar[str | None] = "curve"
    unit_interval: ClassVar[bool | None] = False
    num_curves: int = Field(ge=1)
    test_size: int = Field(ge=1)
    num_points: int = Field(ge=2)
    x_min: float = Field(gt=0, lt=1)
    x_max: float = Field(gt=0, lt=1)
    max_parameter: float = Field(gt=0)
    quantity: Literal["log_density", "density"]
    seed: int = Field(ge=0)
    test_seed: int = Field(ge=0)

    def problems(self, config: "Config") -> Iterator[str]:
        if self.x_min >= self.x_max:
            yield f"dataset.x_min={self.x_min:g}: must be < dataset.x_max={self.x_max:g}"
        if self.val_size is not None and self.val_size >= self.num_curves:
            yield (
                f"dataset.val_size={self.val_size}: must be less than"
                f" dataset.num_curves={self.num_curves}"
            )
