"""`task=embed`: the code of every example, for other programs."""

from __future__ import annotations

from pathlib import Path

from vae_cli.data.interface import Split
from vae_cli.eval_config import EmbedTask
from vae_cli.evaluation import Codes, encode
from vae_cli.tasks.interface import Report, seed_of, write_npz
from vae_cli.trained import TrainedRun


def run(task: EmbedTask, run: TrainedRun, out: Path) -> Report:
    """codes_train.npz, codes_val.npz (where there is one) and codes_test.npz."""
    data = run.data()
    splits = {"train": data.train, "val": data.val, "test": data.test}
    rows, files = {}, []
    for name, split in splits.items():
        if split is None:
            continue
        codes = encode(run.vae, data, split, seed_of(task, run))
        path = out / f"codes_{name}.npz"
        files.append(write_npz(path, _arrays(codes, split, data.class_names)))
        rows[name] = f"{len(split):,} codes of {codes.mean.shape[1]} numbers"
    return Report(rows, files)


def _arrays(codes: Codes, split: Split, class_names: tuple[str, ...]) -> dict[str, object]:
    arrays: dict[str, object] = {"mean": codes.mean, "stddev": codes.stddev, "kl": codes.kl}
    if split.labels is not None:
        arrays["labels"] = split.labels
        arrays["class_names"] = list(class_names)
    for name, values in (split.parameters or {}).items():
        arrays[f"parameter_{name}"] = values
    return arrays
