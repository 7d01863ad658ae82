"""How large the values of your own arrays are: scaled, or said where the loss expects others."""

import math

import torch
from torch import Tensor

from vae_cli.config.datasets import ArraysConfig
from vae_cli.console import say


def scaled(splits: list[Tensor], config: ArraysConfig, names: list[str]) -> list[Tensor]:
    """Scale each channel or column by the first, the training part, in float64, then round.

    names: of the columns of a table that has names.
    """
    train, none = splits[0], config.scale == "none"
    if none and train.dtype == torch.uint8:
        return splits
    columns = train.transpose(0, 1).flatten(1).double()  # [P or C, numbers]
    low, high = columns.aminmax(dim=1)
    if none:
        step = 2**-23 * torch.maximum(-low, high)  # of float32 at most
        for column in columns[step > (high - low) / 2**16]:
            before, after = len(column.unique()), len(column.float().unique())
            if after < before:
                kept = f"float32 keeps {after:,} of {before:,} values of a column"
                say(f"warning: {config.train}: {kept}; use dataset.scale=minmax or standard")
                break
        if note := _magnitude(columns, train.ndim == 2, names):
            say(f"note: {config.train}: {note}")
        return [x.float() for x in splits]
    varies, shift, span = low < high, low, high - low
    if config.scale == "standard":
        shift, span = columns.mean(1), columns.std(1, unbiased=False)
    shape = (-1, *[1] * (train.ndim - 2))  # a constant becomes 0
    shift, span = shift.where(varies, low).view(shape), span.where(varies, 1.0).view(shape)
    return [((x.double() - shift) / span).float() for x in splits]


def _magnitude(columns: Tensor, is_table: bool, names: list[str]) -> str:
    """Say what to set where values look like bytes, or vary by far more or less than 1; else "".

    columns: [P or C, numbers], of each column or channel.
    """
    (low, high), side = map(float, columns.aminmax()), math.isqrt(len(columns))
    square = is_table and low >= 0 and 128 <= high <= 255 and len(columns) == side**2 > 9
    if square and not (columns % 1).any():
        how = f"if these are grey values, write 'dataset.shape=[{side},{side}]'"
        return f"whole numbers up to {high:g}: {how}"
    spread = columns.std(1, unbiased=False)
    some = spread.where(spread > 0, torch.inf)  # without constants
    most, least = float(spread.max()), float(some.min())
    kind = "a column" if is_table else "a channel"
    kind = f"the column {names[int(spread.argmax())]}" if names else kind
    scale = "standard" if names or low < 0 else "minmax"
    if most > 10 or 0 < most < 0.01:
        size = f"{most:,.0f}" if most > 10 else f"{most:.1g}"
        line = f"{kind} has the standard deviation {size}, and the loss is meant for about 1"
        return f"{line}; use dataset.scale={scale}"
    if names and most > 100 * least:
        other = f"{most / least:,.0f} times as much as {names[int(some.argmin())]}"
        return f"{kind} varies {other}, which the loss hardly sees; use dataset.scale={scale}"
    return ""
