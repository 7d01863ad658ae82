"""The texts of --help and docs/settings.md: values and meanings from YAML, ranges from the schema.

`python -m vae_cli.config.help > docs/settings.md` writes the page. Imports no torch.
"""

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from vae_cli.config.check import flatten, shown
from vae_cli.config.compose import hydra_words, parse_overrides, plain_settings
from vae_cli.config.registry import PLUGINS, SCHEMAS, config_dir, node_of
from vae_cli.config.settings import GROUPS, Config

COMPLETION = """
Completion with Tab, a line for ~/.bashrc (in zsh after `autoload -U bashcompinit && bashcompinit`):
  eval "$(COMMAND -sc install=bash)"     (in fish: COMMAND -sc install=fish | source)"""

TRAIN = """\
vae-train: train an autoencoder or a VAE
usage: vae-train [RUN] [GROUP=CHOICE …] [KEY=VALUE …] [SWITCH …]

A setting of a group is written GROUP.KEY=VALUE, as in model.latent_dim=2 or optimizer.lr=3e-4;
lists stand in quotes, because brackets mean something to a shell: 'model.hidden_sizes=[512,256]'.
`vae-train model=conv_vae beta_schedule=cyclical --help` lists the settings of these two as well.

Examples:
  vae-train model=conv_vae beta=4                a convolutional beta-VAE
  vae-train -m beta=1,2,4 seed=0,1               a sweep: six runs, one after the other
  vae-train -m sweep=beta hydra.sweep.dir=DIR    a preset's sweep; the same command goes on with it
  vae-train resume=outputs/RUN epochs=40         go on with a run, to 40 epochs (or resume=latest)

Switches and settings of Hydra (--hydra-help: more):
  --cfg job --resolve       show all settings of a command line with their values
  -m hydra/launcher=joblib  several jobs at once (docs/scaling.md; clusters too)
  -m hydra/sweeper=optuna   a search over ranges, 'KEY=interval(a,b)'
  hydra.run.dir=DIR         the run's folder (of a sweep: hydra.sweep.dir)
  --config-dir DIR          a folder with more YAML files of your own, in the same groups
  --version                 the versions of vae-train, torch and hydra
""" + COMPLETION.replace("COMMAND", "vae-train")

EVAL = """\
vae-eval: measure, draw and export what vae-train has trained
usage: vae-eval RUN [task=TASK] [KEY=VALUE …] [--cfg job] [--version]

`vae-eval task=nll --help` lists the settings of this task as well.

Examples:
  vae-eval run=latest                             test metrics, and more, of the newest run
  vae-eval run=DIR task=nll num_samples=1000      log p(x) by importance sampling
  vae-eval run=DIR task=interpolate from=3 to=8   pictures from a 3 to an 8
""" + COMPLETION.replace("COMMAND", "vae-eval")

REPORT = """\
vae-report: compare runs in a table and, in the folder of a sweep, a report with pictures
usage: vae-report DIR … [KEY=VALUE …] [--no-figures] [--version]

Settings:
  metric=NAME   what decides the best: elbo, kl, val/loss; else the `monitor` of the runs
  format=FORM   print only: table, csv, json or markdown
  out=DIR       folder of the report; else the first DIR
  plugins=NAME  modules with components of your own that the runs need, such as my_vae or a,b

Examples:
  vae-report outputs/sweeps/NAME metric=kl
  vae-report outputs format=csv > runs.csv
""" + COMPLETION.replace("COMMAND", "vae-report")

# key as it is typed, value as the YAML has it, meaning, type and range
Setting = tuple[str, str, str, str]
# types of JSON schema in words, and its bounds as signs
TYPES = {"integer": "whole number", "boolean": "true | false", "string": "text"}
BOUNDS = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
# a line of our YAML files: `key: value  # meaning`, also inside a section or the defaults list
LINE = re.compile(r"( *(?:- )?)(\w+):(?: +(.*?))?(?: +# (.*))?")


class Page(NamedTuple):
    """The content of a YAML file, together with the files that it inherits."""

    about: str  # the comment at its top
    values: dict[str, list[str]]  # key -> value, meaning
    groups: dict[str, list[str]]  # group -> default choice, meaning


class Pages:
    """The YAML files of configs/, of plug-ins, and of a folder of the user's own."""

    def __init__(self, primary: str, extra_dir: str | None = None) -> None:
        """primary: "config", the settings of vae-train, or "eval", those of vae-eval."""
        self.folders = [config_dir(), *PLUGINS.values(), *([Path(extra_dir)] if extra_dir else [])]
        self.primary = self.read(primary)

    def choices(self, group: str) -> list[str]:
        """The names of a group's files, the default first."""
        names = {path.stem for folder in self.folders for path in (folder / group).glob("*.yaml")}
        return sorted(names, key=lambda name: (name != self.primary.groups[group][0], name))

    def read(self, name: str) -> Page:
        """Read NAME.yaml, as in "model/ae", from the first folder that has it."""
        path = next(p for folder in self.folders if (p := folder / f"{name}.yaml").is_file())
        text = re.sub("# @package .*\n", "", path.read_text("utf-8"))
        lines = text.splitlines()
        header = list(takewhile(lambda line: line.startswith("#"), lines))
        values: dict[str, list[str]] = {}
        groups: dict[str, list[str]] = {}
        for entry in yaml.safe_load(text).get("defaults", []):
            if isinstance(entry, str) and entry != "_self_":
                values |= self.read(f"{name.partition('/')[0]}/{entry}").values
        section, pair = "", ["", ""]
        for line in lines[len(header) :]:
            if line.startswith("  #"):  # a meaning goes on
                pair[1] += " " + line.strip("# ")
            elif match := LINE.fullmatch(line):
                indent, key, value, meaning = (part or "" for part in match.groups())
                section = section if indent else key
                key = f"{section}.{key}" if indent == "  " else key
                pair = [value.replace(", ", ","), meaning or values.get(key, ["", ""])[1]]
                if "-" in indent:
                    groups[key] = pair
                elif value and section not in ("hydra", "task", "defaults", "/" in name and "name"):
                    values[key] = pair
        return Page(" ".join(line.strip("# ") for line in header), values, groups)

    def settings(self, group: str = "", choice: str = "", schema: str = "") -> list[Setting]:
        """The settings of a group's choice, or of every run. schema: its name, if not `choice`."""
        page = self.read(f"{group}/{choice}") if group else self.primary
        model = SCHEMAS.get((group, schema or choice)) if group else Config
        if page is self.primary and "task" in page.groups:
            model = SCHEMAS.get(("task", page.groups["task"][0]))
        limits = dict(_limits(model.model_json_schema())) if model else {}
        prefix = node_of(group, choice) if model and group else ""
        return [
            (prefix + key, value, meaning, limits.get(key, ""))
            for key, (value, meaning) in page.values.items()
        ]


def _limits(
    node: Mapping[str, Any], definitions: Mapping[str, Any] | None = None
) -> Iterator[tuple[str, str]]:
    """Yield (key, type and range) of a JSON schema."""
    definitions = definitions or node.get("$defs", {})
    for name, item in node["properties"].items():
        if "$ref" in item:
            inner = definitions[item["$ref"].rpartition("/")[2]]
            yield from ((f"{name}.{key}", words) for key, words in _limits(inner, definitions))
        else:
            yield name, _words(item)


def _words(node: Mapping[str, Any]) -> str:
    """A JSON schema's type and range in words."""
    if "description" in node:
        return str(node["description"])
    if "anyOf" in node:
        return " | ".join(_words(each) for each in node["anyOf"])
    if "enum" in node or "const" in node:
        return " | ".join(map(str, node.get("enum", [node.get("const")])))
    if node["type"] == "array":
        count = f", at least {node['minItems']}" if "minItems" in node else ""
        return f"list of: {_words(node['items'])}{count}"
    bounds = ", ".join(f"{sign} {node[key]:g}" for key, sign in BOUNDS.items() if key in node)
    return f"{TYPES.get(node['type'], node['type'])} {bounds}".strip()


# ------------------------------------------------------------------------------------ the texts


def help_text(
    primary: str, text: str, overrides: Sequence[str] = (), extra_dir: str | None = None
) -> str:
    """List choices and settings, and the settings of the choices that a command line names.

    primary: see Pages; text: usage and, below the lists, the rest. Raises UserError for a mistake.
    """
    pages = Pages(primary, extra_dir)
    groups = pages.primary.groups
    parsed = zip(overrides, parse_overrides(hydra_words(overrides)), strict=True)
    chosen = {text: o for text, o in parsed if not o.is_sweep_override()}
    plain = plain_settings(primary, list(chosen), extra_dir)
    usage, _, rest = text.partition("\n\n")
    if primary == "eval":
        rows = [(name, pages.read(f"task/{name}").about) for name in pages.choices("task")]
    else:
        names = [*GROUPS, *(group for group in groups if group not in GROUPS)]
        rows = [(g, f"{groups[g][1]}: {', '.join(pages.choices(g))}") for g in names]
    parts = [
        usage,
        _section("Choices (default first)", rows),
        _listed("Settings", pages.settings()),
    ]
    for override in chosen.values():
        group, value = override.key_or_group, override.value()
        choices = value if isinstance(value, list) else [value]  # of `logger` several
        for choice in map(str, choices if group in groups else ()):
            name = plain[group]["name"] if group in GROUPS else choice
            parts.append(_listed(f"{group}={choice}", pages.settings(group, choice, name), plain))
    return "\n\n".join([*parts, rest])


def eval_words(typed: Sequence[str]) -> list[str]:
    """The words that can follow on a command line of vae-eval: tasks, and settings of that task."""
    pages = Pages("eval")
    tasks = {f"task={name}": name for name in pages.choices("task")}
    own = [row for word in typed if word in tasks for row in pages.settings("task", tasks[word])]
    return [*tasks, *(f"{key}=" for key, *_ in pages.settings() + own)]


def _listed(title: str, settings: Sequence[Setting], plain: Mapping[str, Any] | None = None) -> str:
    """List settings; plain: composed values, to show in place of the YAML's references."""
    values, rows = flatten(plain or {}), []
    for key, value, meaning, limits in settings:
        value = shown(values[key]) if "${" in value and key in values else value
        text = f"{meaning} ({limits})" if limits else meaning
        rows.append((f"{key}={value.replace('???', '…')}", text))
    return _section(title, rows or [("no settings", "")])


def _section(title: str, rows: Sequence[tuple[str, str]]) -> str:
    """A title and two columns, at most 100 characters wide."""
    width = max(len(left) for left, _ in rows) + 2
    lines = [f"{title}:"]
    for left, right in rows:
        wrapped = textwrap.wrap(right, 98 - width) or [""]
        lines.append(f"  {left:<{width}}{wrapped[0]}".rstrip())
        lines += [" " * (width + 2) + more for more in wrapped[1:]]
    return "\n".join(lines)


def markdown() -> str:
    """The page docs/settings.md: every setting of every choice."""
    import_module("vae_cli.analysis.settings")  # it registers vae-eval's tasks
    parts = ["# Settings", "Written by `python -m vae_cli.config.help > docs/settings.md`."]
    for primary, title in (("config", "vae-train"), ("eval", "vae-eval")):
        pages = Pages(primary)
        parts += [f"## {title}", _table(pages.settings())]
        for group, (_, meaning) in pages.primary.groups.items():
            parts.append(f"### {group}: {meaning}")
            for choice in pages.choices(group):
                parts.append(f"**`{group}={choice}`** {pages.read(f'{group}/{choice}').about}")
                parts.append(_table(pages.settings(group, choice)))
    return "\n\n".join(filter(None, parts)) + "\n"


def _table(settings: Sequence[Setting]) -> str:
    rows = [(f"`{key}`", f"`{value}`", *words) for key, value, *words in settings]
    rows = [("setting", "value", "meaning", "type and range"), ("---",) * 4, *rows] if rows else []
    cells = [[text.replace("|", "\\|") for text in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


if __name__ == "__main__":
    print(markdown(), end="")
