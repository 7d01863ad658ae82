"""Pictures in TensorBoard as training goes on: the same reconstructions and samples every time."""

from __future__ import annotations

import logging

import torch

from vae_cli import figures
from vae_cli.config import Config, Figures
from vae_cli.data.interface import Data
from vae_cli.run import Run
from vae_cli.vae import VAE
from vae_cli.viewer import SHOWN, Viewer

log = logging.getLogger(__name__)


class Progressive:
    """Draws the model as it is. Images are tiled without matplotlib; curves need it."""

    def __init__(self, data: Data, config: Config, run: Run) -> None:
        self.data = data
        self.config = config
        self.run = run
        self.wanted = config.figures is Figures.auto and config.image_every > 0

    def draw(self, vae: VAE, step: int) -> None:
        """Write the pictures of this step. One that fails is logged; training goes on."""
        if not self.wanted:
            return
        try:
            self._draw(Viewer(vae, self.data, self.config), step)
        except Exception:
            log.exception("no pictures for step %d", step)
            self.wanted = False

    def _draw(self, view: Viewer, step: int) -> None:
        originals, reconstructions = view.shown(view.x), view.reconstructed()
        if view.images:
            both = torch.cat([originals, reconstructions])
            self.run.log_image("reconstructions", figures.tile_grid(both, SHOWN), step)
            if view.generative:
                self.run.log_image("samples", figures.tile_grid(view.sampled(), 8), step)
            return
        rows = {"reconstruction": reconstructions}
        pair = figures.reconstructions(originals, rows, curve_axes=view.axes)
        self.run.log_figure("reconstructions", figures.image_array(pair), step)
        if view.generative:
            drawn = figures.samples(view.sampled(), curve_axes=view.axes)
            self.run.log_figure("samples", figures.image_array(drawn), step)
