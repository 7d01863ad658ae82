"""The models of several runs, shown side by side over the same data. Imports torch."""

from __future__ import annotations

from matplotlib.figure import Figure
from torch import Tensor

from vae_cli.data.interface import Data
from vae_cli.figures import images
from vae_cli.report.reading import leads_out
from vae_cli.report.runs import RunRecord
from vae_cli.trained import load_run
from vae_cli.viewer import Viewer

SHOWN = 10  # examples of each
WEIGHTS = ("model.safetensors", "checkpoints", "checkpoints/best.ckpt", "checkpoints/last.ckpt")


class Models:
    """The chosen runs' models, each loaded once, over the same data where they have the same."""

    def __init__(self, runs: dict[str, RunRecord]) -> None:
        self.runs = runs
        self._views: dict[str, Viewer] | None = None

    def samples(self, name: str) -> Figure:
        """The same prior draws through every model; autoencoders have no prior."""
        rows = {n: v.sampled()[:SHOWN] for n, v in self._loaded().items() if v.generative}
        axes = next(iter(self._loaded().values())).axes
        return images.samples_of_models(rows, axes, f"Prior samples over {name}")

    def reconstructions(self, name: str) -> Figure:
        """The same test examples through every model."""
        views = self._loaded()
        first = next(iter(views.values()))
        rows: dict[str, Tensor] = {n: view.reconstructed()[:SHOWN] for n, view in views.items()}
        originals = first.shown(first.x)[:SHOWN]
        title = f"Reconstructions over {name}"
        return images.reconstructions(originals, rows, first.axes, title)

    def _loaded(self) -> dict[str, Viewer]:
        if self._views is None:
            self._views = self._load()
        return self._views

    def _load(self) -> dict[str, Viewer]:
        views, known = {}, dict[str, Data]()
        for name, run in self.runs.items():
            if any(leads_out(run.folder / part, run.root) for part in WEIGHTS):
                raise ValueError(f"{run.name}: its weights are a link that leads out of the folder")
            trained = load_run(run.folder)
            config = trained.config
            key = repr((config.dataset, config.seed, config.data_dir))
            if key not in known:
                known[key] = trained.data()
            views[name] = Viewer(trained.vae, known[key], config)
        shapes = {view.data.shape for view in views.values()}
        if len(shapes) > 1:
            raise ValueError("the runs' examples have different shapes")
        return views
