"""Drawing a finished run: every picture that fits its model and its data (see `pictures`)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer

from vae_cli import console, figures, projector
from vae_cli.config import Config
from vae_cli.data.interface import Data
from vae_cli.evaluation import Evaluation
from vae_cli.pictures import PICTURES, Picture
from vae_cli.run import Run, read_metrics
from vae_cli.vae import VAE
from vae_cli.viewer import Viewer

log = logging.getLogger(__name__)

PATIENCE = 2.0  # seconds without a word


def draw(
    vae: VAE,
    data: Data,
    config: Config,
    folder: Path,
    found: Evaluation | None = None,
    run: Run | None = None,
    into: Path | None = None,
) -> list[Path]:
    """Draw into `figures/` of a run folder, for TensorBoard's projector and, with a `run` that is
    being written, into TensorBoard's images. Returns the pictures that were drawn.

    `into`: another folder to draw in; the run's own stays as it is. `found` is the model measured
    on the test set; without it that is done where it is needed. A picture that fails is logged with
    its traceback and costs no more than itself.
    """
    history = read_metrics(folder)
    view = Viewer(vae, data, config, found, history)
    step = history[-1]["step"] if history else 0
    into = folder if into is None else into
    target = into / "figures"
    target.mkdir(exist_ok=True)
    fitting = [picture for picture in PICTURES if picture.fits(view)]
    drawn = []
    with _said_when_slow(f"drawing {len(fitting)} figures …"):
        for picture in fitting:
            path = target / picture.file
            with _forgiving(picture.file):
                png = _write(picture, view, path)
                drawn.append(path)
                if run is not None and png is not None:
                    run.log_png(f"figures/{path.stem}", png, step)
        with _forgiving("TensorBoard's projector"):
            projector.write(view, into)
    return drawn


def _write(picture: Picture, view: Viewer, path: Path) -> bytes | None:
    """Draw one picture and write it. Returns the PNG of one that stands still."""
    made = picture.make(view)
    if isinstance(made, list):
        figures.save_gif(made, path)
        return None
    return figures.save_png(made, path)


@contextmanager
def _forgiving(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # whatever it is: a picture is not worth a finished run
        log.exception("%s could not be drawn", name)
        console.say(f"warning: {name} could not be drawn: {error}")


@contextmanager
def _said_when_slow(line: str) -> Iterator[None]:
    timer = Timer(PATIENCE, console.say, [line])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
