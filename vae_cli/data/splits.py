"""How examples are held out for validation and test: always the same ones."""

import torch

from vae_cli.console import UserError
from vae_cli.data.dataset import Split

SPLIT_SEED = 2014  # not the run's: runs with different seeds use the same examples


def carve(
    examples: Split, size: int | None, setting: str, shuffled: bool = False
) -> tuple[Split, Split]:
    """Move `size` examples (None: a tenth, at most 10,000) to another set -> the rest, this set.

    They are always the same ones. Raises UserError naming the setting where no example is left.
    """
    total = len(examples)
    count = min(max(1, total // 10), 10_000) if size is None else size
    if count >= total:
        raise UserError(f"dataset.{setting}={count}: must be less than the {total:,} examples")
    order = torch.randperm(total, generator=torch.Generator().manual_seed(SPLIT_SEED))
    rest, part = order[count:], order[:count]
    if not shuffled:
        rest, part = rest.sort().values, part.sort().values
    return examples.take(rest), examples.take(part)


def carve_validation(train: Split, size: int | None) -> tuple[Split, Split | None]:
    """Move `size` training examples, as in `dataset.val_size`, to a validation set; 0: None."""
    return (train, None) if size == 0 else carve(train, size, "val_size")
