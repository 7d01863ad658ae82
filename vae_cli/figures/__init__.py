"""All pictures the tool draws: tensors in, matplotlib figures out.

A name is imported when it is first used, and matplotlib with it: a run that draws nothing, or only
tile grids for TensorBoard, does without.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vae_cli.figures.curves import CurveAxes, curve_fit, residuals
    from vae_cli.figures.dimensions import code_histograms, kl_bars
    from vae_cli.figures.history import loss_curves
    from vae_cli.figures.images import reconstructions, samples
    from vae_cli.figures.latent import latent_scatter
    from vae_cli.figures.output import animation_frames, image_array, save_gif, save_png
    from vae_cli.figures.tiles import tile_grid
    from vae_cli.figures.walks import interpolation, manifold, traversals

_MODULES = {
    "curves": ("CurveAxes", "curve_fit", "residuals"),
    "dimensions": ("code_histograms", "kl_bars"),
    "history": ("loss_curves",),
    "images": ("reconstructions", "samples"),
    "latent": ("latent_scatter",),
    "output": ("animation_frames", "image_array", "save_gif", "save_png"),
    "tiles": ("tile_grid",),
    "walks": ("interpolation", "manifold", "traversals"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "CurveAxes",
    "animation_frames",
    "code_histograms",
    "curve_fit",
    "image_array",
    "interpolation",
    "kl_bars",
    "latent_scatter",
    "loss_curves",
    "manifold",
    "reconstructions",
    "residuals",
    "samples",
    "save_gif",
    "save_png",
    "tile_grid",
    "traversals",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
