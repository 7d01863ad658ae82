"""What a run needs before its state: this process prepared, the device, data that fits the rest."""

import ctypes
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from vae_cli.config.settings import Config
from vae_cli.console import RunFailed, UserError
from vae_cli.data.builtin import cache_dir, default_data_dir
from vae_cli.data.dataset import Data, fingerprint
from vae_cli.vae.priors import Examples
from vae_cli.vae.vae import VAE, build_vae


@contextmanager
def prepared_process(config: Config) -> Iterator[None]:
    """Tune this process for training, and let torch use the kernels that the settings allow.

    After the block a notebook's torch is as it was: its choice of kernels, and its random numbers.
    """
    # Adam's means of gradients that are nearly always zero (the border of a picture) decay into
    # denormal numbers, with which a CPU is a hundred times slower
    torch.set_flush_denormal(True)
    with suppress(AttributeError, TypeError):  # where there is no glibc
        # it gives the memory of freed activations back to the system, which has to clear it again
        # for the next step; without that an epoch of a small network is 5 % shorter
        mallopt = ctypes.CDLL(None).mallopt
        if mallopt(-3, 1 << 25):  # M_MMAP_THRESHOLD, the largest that every version takes
            mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD
    with suppress(OSError):  # where it cannot be made, torch takes a folder for temporary files
        (programs := cache_dir() / "compiled").mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(programs))
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    if config.deterministic != before[0]:  # imports compilers
        torch.use_deterministic_algorithms(config.deterministic)
    torch.backends.cudnn.benchmark = not config.deterministic
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_flush_denormal(False)
        if config.deterministic != before[0]:
            torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]


def device_of(name: str) -> torch.device:
    """Return the device of `device=…`. Raises UserError where this machine does not have it."""
    counts = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    device = torch.device(("cuda" if counts["cuda"] else "cpu") if name == "auto" else name)
    if (device.index or 0) >= counts.get(device.type, 1):
        devices = f"{counts[device.type]} {device.type} devices"
        raise UserError(f"device={name}: this machine has {devices}; use device=auto or cpu")
    return device


def load_data(config: Config, former: Mapping[str, Any] | None = None) -> Data:
    """Load the dataset. Raises UserError where it does not go with the other settings.

    former: the `identity` of the data that the run was trained on; other data are refused.
    """
    data: Data = config.dataset.build(Path(config.data_dir or default_data_dir()).expanduser())
    if not data.digest:
        splits = [split.x[:] for split in (data.train, data.val, data.test) if split is not None]
        data = replace(data, digest=fingerprint(*splits))
    pairs = {key: (old, data.identity.get(key, old)) for key, old in (former or {}).items()}
    changes = "; ".join(f"{k}: {old}, now {new}" for k, (old, new) in pairs.items() if old != new)
    if changes:
        raise UserError(
            f"dataset={config.dataset.name}: the data are not those that the run was trained on:"
            f" {changes}; bring those back (data that have moved: name their place, as in"
            " dataset.train=FILE), or measure on these with vae-eval other_data=true"
        )
    low, high = data.value_range()
    values = f"dataset={data.name} has values from {low:g} to {high:g}"
    if ("image" if len(data.shape) == 3 else "curve") not in config.model.accepts:
        raise UserError(config.model.refusal_of_curves(data.name))
    if config.likelihood.needs_unit_interval and not (low >= 0 and high <= 1):
        scale = ", or dataset.scale=minmax" * hasattr(config.dataset, "scale")
        raise UserError(config.likelihood.refusal_of_data(values) + scale)
    parts = (part for part in (data.train, data.val, data.test) if part is not None)
    if config.model.condition_on_labels and any(part.labels is None for part in parts):
        raise UserError(f"model.condition_on_labels=true: dataset={data.name} has no labels")
    if config.batch_size > len(data.train):
        examples = f"{len(data.train):,} training examples of {data.name}"
        raise UserError(f"batch_size={config.batch_size}: must be at most the {examples}")
    return data


def fresh_vae(config: Config, data: Data) -> VAE:
    """Build the VAE that a training starts from, as model.init and model.output_bias say."""
    vae = build_vae(config, data.shape, len(data.class_names))
    if config.model.output_bias == "data_mean":
        vae.start_at(*data.mean())
    drawn = data.binarize == "dynamic"
    vae.learn_from(Examples(len(data.train), lambda count: data.some(count, config.seed), drawn))
    return vae


@contextmanager
def out_of_memory(config: Config) -> Iterator[None]:
    """Say what to lower where the block needs more memory than there is. Raises RunFailed."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch raises a RuntimeError on a CPU
        if not re.search("MemoryError|(out of|allocate|not enough) memory", repr(error)):
            raise
        where = f"batch_size={config.batch_size} on device={config.device}"
        remedies = "batch_size, the sizes of layers or objective.num_samples"
        raise RunFailed(f"out of memory with {where}: lower {remedies}") from error
