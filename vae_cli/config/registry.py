"""Schemas of components, and the one place where a schema is made known.

A component is a choice of a config group: `likelihood=laplace`. Its schema says which settings it
has, of which type and range; the values and their meanings stand in `configs/GROUP/NAME.yaml`.
"""

import re
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from vae_cli.console import UserError

if TYPE_CHECKING:
    from vae_cli.config.settings import Config

# Marks of a setting, written Annotated[type, MARK]:
HOW = "how"  # where and how a run is done: its numbers do not depend on it, rounding aside
HOW_FAR = "how far"  # a run can go on with another value: the past does not depend on it
PLACE = "place"  # where data lie: a run can go on with another place that holds equal data; of a
# logger, where it writes: a saved run does not decide it


DEVICES = "auto, cpu, cuda, cuda:N or mps"


def _known_device(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", name):
        raise PydanticCustomError("device", f"must be {DEVICES}")
    return name


Device = Annotated[str, AfterValidator(_known_device), Field(description=DEVICES)]


def listed(given: Any) -> Any:
    """Split a text "a,b" into its items; any other value comes back as it is."""
    if not isinstance(given, str):
        return given
    return [item.strip(" '\"") for item in given.split(",") if item.strip()]


Plugins = Annotated[list[str], BeforeValidator(listed), Field(description="module, or a list")]
Tags = Annotated[list[str], BeforeValidator(listed), Field(description="word, or a list")]


class Schema(BaseModel):
    """A group of settings without default values: every value lives once, in YAML."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)


class Component(Schema):
    """A choice of a config group."""

    builds: ClassVar[str]  # "module:object", set by `register`: no configuration names code
    plugin: ClassVar[str] = ""  # the plug-in that brought this schema; "" for one of ours
    uses_epochs: ClassVar[bool] = False  # with more epochs, its values in the past would change
    name: str

    def build(self, *args: Any) -> Any:
        """Import the object that this schema describes and call it with the schema and `args`."""
        module, _, name = self.builds.partition(":")
        return getattr(import_module(module), name)(self, *args)

    def problems(self, config: "Config") -> Iterator[str]:
        """Yield a line for each combination with other settings that cannot work."""
        yield from ()


def node_of(group: str, name: str) -> str:
    """What stands before the settings of a choice: "model.", or "logger.csv." of one of several."""
    return {"logger": f"logger.{name}.", "task": ""}.get(group, f"{group}.")


SCHEMAS: dict[tuple[str, str], type[Component]] = {}  # (group, name) -> schema
PLUGINS: dict[str, Path] = {}  # the modules that `load_plugins` has imported -> their configs/
Chosen = TypeVar("Chosen", bound=Component)


def register(group: str, *names: str, builds: str) -> Callable[[type[Chosen]], type[Chosen]]:
    """Make a schema known for the choices `names` of a config group, one YAML file each.

    builds: "module:object", the class or function that a component of this schema is made by.
    Raises UserError for a name that another schema has.
    """

    def remember(schema: type[Chosen]) -> type[Chosen]:
        schema.builds = builds
        for name in names:
            other = SCHEMAS.get((group, name), schema)
            # a class may come again: a notebook runs its cell twice
            if (other.__module__, other.__qualname__) != (schema.__module__, schema.__qualname__):
                line = f"{group}={name}: {other.__module__} has this name"
                raise UserError(f"{line}; choose another in {schema.__module__}")
        SCHEMAS.update(dict.fromkeys(((group, name) for name in names), schema))
        return schema

    return remember


def config_dir() -> Path:
    """The folder of the YAML files: inside an installed wheel, else beside the package."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "config.yaml").is_file():
            return folder
    raise UserError(f"the folder configs/ is missing beside {package}: install vae-cli again")
