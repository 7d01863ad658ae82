"""docs/models.md, docs/faq.md: every line of choices that they name is accepted."""

import re

import pytest

from vae_cli.analysis import settings  # noqa: F401  registers the tasks
from vae_cli.config.check import validated
from vae_cli.config.compose import plain_settings, settings_of
from vae_cli.config.registry import SCHEMAS, config_dir

PAGE = (config_dir().parent / "docs" / "models.md").read_text()
TABLE = PAGE.partition("## What each name is")[2].partition("\n## ")[0]
COMBINED = re.findall("They combine: `vae-train ([^`]+)`", PAGE)
ROWS = [row.split("|")[1:3] for row in TABLE.splitlines() if row.startswith("| ")][1:]
LINES = [(name.strip(), line) for name, cell in ROWS for line in re.findall("`([^`]+)`", cell)]
LINES += [("combined", line) for line in COMBINED]
FAQ = (config_dir().parent / "docs" / "faq.md").read_text()
LINES += [("faq", line) for line in re.findall(r"^vae-train (dataset.+?)(?: +#.*)?$", FAQ, re.M)]
LINES += [("faq", line) for line in re.findall(r"^(vae-eval .+?)(?: +#.*)?$", FAQ, re.M)]


def test_the_page_names_what_other_libraries_have():
    assert len({name for name, _ in LINES}) > 25


@pytest.mark.parametrize(("name", "line"), LINES)
def test_a_line_of_choices_is_accepted(name, line):
    command, *rest = line.split()
    if command == "vae-eval":
        words = [word for word in rest if word != "latest"]
        plain = plain_settings("eval", ["run=a", *words])
        validated(SCHEMAS["task", plain["task"]], plain)
    else:
        settings_of("config", line.split())
