"""Load a dataset with the values of its YAML file, without composing the rest."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from vae_cli.config.registry import SCHEMAS
from vae_cli.data.dataset import Data

CONFIGS = Path(__file__).parents[2] / "configs" / "dataset"


@pytest.fixture(scope="session")
def load() -> Callable[..., Data]:
    def load(name: str, data_dir: Path = Path("/nowhere"), **settings: Any) -> Data:
        values = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
        values = {key: value for key, value in values.items() if key != "defaults"} | settings
        return SCHEMAS["dataset", name].model_validate(values).build(data_dir)

    return load
