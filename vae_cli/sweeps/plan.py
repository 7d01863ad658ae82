"""From the command line of a sweep to its checked jobs and their folders. No torch, no pandas."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from vae_cli.config.check import (
    HOW_KEYS,
    as_container,
    digest,
    given_keys,
    identity,
    is_among,
    short_names,
    typed,
)
from vae_cli.config.compose import composed, hydra_words, parse_overrides
from vae_cli.config.settings import Config
from vae_cli.console import UserError, one_line, say
from vae_cli.runs import resume, saved
from vae_cli.runs.files import locked, write_json
from vae_cli.sweeps.multirun import Composer

if TYPE_CHECKING:
    from vae_cli.sweeps.search import Search

JOBS = "jobs.json"  # in the folder of a sweep: what it was started with


@dataclass(frozen=True)
class Job:
    """One run of a sweep, in plain values: a worker imports plug-ins before it meets a class."""

    number: int  # from 1
    overrides: list[str]  # KEY=VALUE, without Hydra's own settings
    swept: dict[str, str]  # those of them in which jobs differ: {"beta": "4", "seed": "0"}
    settings: dict[str, Any]
    folder: Path

    def __str__(self) -> str:
        return f"job {self.number} ({' '.join(self.overrides)})"

    @property
    def config(self) -> Config:
        """The settings with their types."""
        return typed(self.settings)

    @property
    def is_finished(self) -> bool:
        """Whether its run has completed, so that nothing is left to do."""
        begun = (self.folder / "config.yaml").is_file()
        return begun and resume.is_finished(saved.read_run(self.folder), self.config)


@dataclass(frozen=True)
class Sweep:
    """What the command line of a sweep asks for. A search makes its jobs while it goes."""

    folder: Path
    jobs: list[Job]
    swept: list[str]  # the settings that vary; of a config group its `name`
    identity: str  # equal for equal jobs, in any order; of a search, for an equal space
    switches: list[str]  # --config-dir=DIR and the like, as typed
    command: list[str]  # what was typed, for readers of the folder
    hydra: DictConfig  # Hydra's own settings, as `hydra`: the launcher and so on
    search: "Search | None" = None

    def title(self, job: Job) -> str:
        """Name a job by its number and what is swept: 'job 3/15 beta=1,seed=2'."""
        names = short_names(job.swept)
        settings = ",".join(f"{names[key]}={value}" for key, value in job.swept.items())
        return f"job {job.number}/{len(self.jobs)} {settings}".rstrip()

    @property
    def shows_jobs(self) -> bool:
        """Whether the command line asks for what each job prints, by quiet=false."""
        return "quiet=false" in map(str.lower, self.command)

    @contextmanager
    def begun(self) -> Iterator[None]:
        """Lock the folder, write jobs.json and say what is left. Raises UserError."""
        with locked(self.folder):
            jobs = [
                {"number": job.number, "folder": str(job.folder.relative_to(self.folder))}
                | {"swept": job.swept, "overrides": job.overrides, "identity": identity(job.config)}
                for job in self.jobs
            ]
            typed = {"command": self.command, "switches": self.switches}
            write_json(self.folder / JOBS, {"identity": self.identity, **typed, "jobs": jobs})
            left = [job for job in self.jobs if not job.is_finished]
            half = sum(saved.has_checkpoint(job.folder) for job in left)
            if half or len(left) < len(jobs):
                counts = f"{len(jobs) - len(left)} are finished, {half} go on, {len(left) - half}"
                say(f"vae-train: {len(jobs)} jobs: {counts} begin; {self.folder}")
            yield


def plan_sweep(
    overrides: Sequence[str], name: str = "config", extra_dir: str | None = None
) -> Sweep:
    """Compose and check all jobs of what was typed, KEY=VALUE each. Raises UserError."""
    check = Composer(name, extra_dir)
    parsed = parse_overrides(hydra_words(overrides, sweep=True))
    resumed = [o for o in parsed if o.key_or_group == "resume"][-1:]
    wanted = resumed[0].value() if resumed else None
    if wanted not in (None, "auto"):
        line = "goes on with one run; leave out -m (a sweep goes on with hydra.sweep.dir=DIR)"
        raise UserError(f"{resumed[0].input_line}: {line}".replace("'", ""))
    task = [o for o in parsed if not o.key_or_group.startswith(("hydra", "resume"))]
    own = [str(o.input_line) for o in parsed if o.key_or_group.startswith("hydra")]
    # a preset may hold settings of Hydra: what is swept, by which sweeper and launcher
    plain = [str(o.input_line) for o in parsed if not o.is_sweep_override()]
    master = composed(name, plain, extra_dir, with_hydra=True)
    hydra = master.hydra
    if "sweep" in [o.key_or_group for o in task]:
        # a single run refuses sweep=NAME: where the preset holds no more, a job does without it
        others = [o for o in parsed if o.key_or_group != "sweep" and not o.is_sweep_override()]
        without = composed(name, [str(o.input_line) for o in others], extra_dir)
        if dict(without) == {key: master[key] for key in without}:
            task = [o for o in task if o.key_or_group != "sweep"]
    params = [f"{key}={value}" for key, value in (hydra.sweeper.get("params") or {}).items()]
    given = {o.key_or_group for o in task}  # the command line wins over a preset
    preset = parse_overrides(hydra_words(params, sweep=True))
    task = [*(o for o in preset if o.key_or_group not in given), *task]

    named = {"--config-name": name * (name != "config"), "--config-dir": extra_dir}
    switches = [f"{switch}={value}" for switch, value in named.items() if value]
    folder, search = output_folder(master, "sweep", overrides), None
    jobs: list[Job] = []
    if hydra.sweeper.get("name") == "optuna":
        if find_spec("optuna") is None:
            raise UserError("hydra/sweeper=optuna needs an extra: pip install 'vae-cli[optuna]'")
        from vae_cli.sweeps.search import plan_search  # imports Optuna

        node = cast(Any, OmegaConf.to_container(hydra.sweeper))
        search = plan_search(node, task, check, switches)
        swept, known = given_keys(search.space), search.identity
    else:
        jobs = _grid(dict(map(_values, task)), check)
        if len(jobs) == 1 and hydra.launcher._target_.endswith("BasicLauncher"):
            line = "give several values, such as beta=1,4, or sweep=beta; one run needs no -m"
            raise UserError(f"-m: nothing is swept: {line}")
        swept, known = given_keys(jobs[0].swept), digest(sorted(identity(j.config) for j in jobs))
    if wanted == "auto" and not any(text.startswith("hydra.sweep.dir=") for text in own):
        paths = outputs_of(master, "sweep").rglob(JOBS)
        same = [x for x in paths if saved.read_summary(x.parent, JOBS).get("identity") == known]
        if same:
            folder = max(same, key=lambda path: path.stat().st_mtime).parent.absolute()
        say(f"vae-train: resume=auto: {'going on' if same else 'a new sweep'} in {folder}")
    hydra.sweep.dir = str(folder)
    plain_jobs: list[Any] = [job.settings for job in jobs] or [master]
    in_vain = all(job["figures"] != "all" and job["image_every"] for job in plain_jobs)
    if in_vain and "image_every" in given_keys(overrides):
        say("vae-train: image_every: a sweep draws no pictures of its runs without figures=all")
    command = ["vae-train", "-m", *switches, *overrides]
    return Sweep(folder, _placed(jobs, folder), swept, known, switches, command, master, search)


def _values(override: Override) -> tuple[str, list[str]]:
    """A setting and its values as texts, in Hydra's order: ("beta", ["1", "4"])."""
    try:
        if override.is_interval_sweep():
            raise ValueError("only a search draws from it; add hydra/sweeper=optuna")
        if not override.is_sweep_override():
            return override.get_key_element(), [override.get_value_element_as_str()]
        return override.get_key_element(), list(override.sweep_string_iterator())
    except Exception as error:  # of whatever kind: what cannot be listed, such as glob(*)
        raise UserError(f"{override.input_line}: {one_line(error)}") from error


def _grid(values: dict[str, list[str]], check: Callable[[Sequence[str]], Config]) -> list[Job]:
    """Every combination of the values, checked, with the name of its folder."""
    jobs: dict[str, Job] = {}  # by all settings
    for number, combination in enumerate(product(*values.values()), start=1):
        pairs = dict(zip(values, combination, strict=True))
        texts = [f"{key}={value}" for key, value in pairs.items()]
        swept = {key: x.strip("'\"") for key, x in pairs.items() if len(values[key]) > 1}
        try:
            settings = as_container(check(texts))
        except UserError as error:
            raise UserError(f"job {number} ({' '.join(texts)}): {error}") from error
        job = Job(number, texts, swept, settings, Path(folder_name(swept)))
        if (twin := jobs.setdefault(digest(settings), job)) is not job:
            raise UserError(f"{twin} and {job} have equal settings; sweep each value once")
    return list(jobs.values())


def _placed(jobs: Sequence[Job], folder: Path) -> list[Job]:
    """The jobs in their folders: by name or, where there is none, by a run with their settings."""
    named, others = {folder / job.folder for job in jobs}, dict[str, Path]()
    for run in saved.find_runs(folder) if jobs else ():
        with suppress(UserError):  # settings of another version
            others |= {identity(run.config): run.folder} if run.folder not in named else {}
    placed = []
    for job in jobs:
        place = folder / job.folder
        if not place.exists():
            place = others.pop(identity(job.config), place)
        begun = (place / "config.yaml").is_file()
        if begun and (changes := resume.differences(saved.read_run(place), job.config)):
            line = f"{job}: {place} holds a run with other settings ({changes})"
            raise UserError(f"{line}, which is not overwritten; choose another folder")
        placed.append(replace(job, folder=place))
    return placed


def outputs_of(cfg: DictConfig, kind: str) -> Path:
    """The folder in which runs or sweeps (kind) are made: hydra.KIND.dir up to the first ${…}."""
    template = cast(dict[str, str], OmegaConf.to_container(cfg.hydra[kind]))["dir"]
    return Path(template.partition("${")[0] or ".")


def output_folder(cfg: DictConfig, kind: str, texts: Sequence[str]) -> Path:
    """The folder of a run or of a sweep (kind), where `hydra.KIND.dir` holds the name of the run.

    cfg: composed with Hydra's settings. texts: what was typed, KEY=VALUE.
    """
    pairs = (text.lstrip("+~").partition("=")[::2] for text in texts)
    # of a path, the end
    given = {k: v.strip("'\"").rstrip("/").rpartition("/")[2] for k, v in pairs}
    parts = [given.pop(g, str(OmegaConf.select(cfg, f"{g}.name"))) for g in ("dataset", "model")]
    said = [k for k in given if not is_among(k, HOW_KEYS) and not k.startswith("hydra")]
    parts += [",".join(f"{key.rpartition('.')[2]}={given[key]}" for key in said)] * bool(said)
    cfg = deepcopy(cfg)
    cfg.name = safe_name(cfg.name or "_".join(parts)).lstrip("-.") or "run"
    return Path(str(cfg.hydra[kind].dir)).absolute()


def folder_name(swept: Mapping[str, str]) -> str:
    """Name the folder of a job by its swept settings; 0 where there is one job without any."""
    return safe_name(",".join(f"{key}={value}" for key, value in swept.items())) or "0"


def safe_name(text: str) -> str:
    """Make a text the name of a file: without what shells dislike, and at most 120 bytes long."""
    name = re.sub(r"[^\w=,.+\-]+", "_", re.sub(r"[]['\"]", "", text))
    if len(name.encode()) > 120:
        name = name.encode()[:100].decode(errors="ignore")
        name += "-" + sha256(text.encode()).hexdigest()[:12]
    return name
