"""From figures to pixels and files. The only place in this package that writes."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from vae_cli.figures import curves, mosaic, style, tiles
from vae_cli.figures.curves import CurveAxes
from vae_cli.files import write_bytes

FRAME_PIXELS = 256  # the longer side of an animated image
SHORTEST_FRAME = 20  # milliseconds; browsers slow anything faster down to 100


def image_array(figure: Figure) -> npt.NDArray[np.uint8]:
    """The figure as RGB pixels [H,W,3]; TensorBoard takes it with dataformats="HWC"."""
    canvas = figure.canvas
    if not isinstance(canvas, FigureCanvasAgg):
        canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]


def save_png(figure: Figure, path: str | Path, dpi: int = style.DPI) -> bytes:
    """Write the figure as PNG without outer margins; the file is whole or not there.

    Returns what was written.
    """
    data = BytesIO()
    figure.savefig(data, format="png", dpi=dpi, bbox_inches="tight", pad_inches=0.08)
    write_bytes(Path(path), data.getvalue())
    return data.getvalue()


def animation_frames(
    decoded: Tensor, curve_axes: CurveAxes | None = None, title: str = ""
) -> list[Image.Image]:
    """Frames of decoded [S,*shape] there and back: all S, then the inner ones reversed.

    Images are enlarged by a whole number and bare; curves are drawn in axes that stand still,
    under `title`.
    """
    images = tiles.is_images(decoded)
    there = _image_frames(decoded) if images else _curve_frames(decoded, curve_axes, title)
    return there + there[-2:0:-1]


def save_gif(frames: Sequence[Image.Image], path: str | Path, seconds: float = 4.0) -> None:
    """Write frames as an endless GIF, one round in `seconds`; the file is whole or not there."""
    if not frames:
        raise ValueError("save_gif: no frames")
    # GIF counts hundredths of a second
    pause = max(SHORTEST_FRAME, round(100 * seconds / len(frames)) * 10)
    data = BytesIO()
    frames[0].save(data, format="GIF", save_all=True, append_images=frames[1:], duration=pause,
                   loop=0)  # fmt: skip
    write_bytes(Path(path), data.getvalue())


def _image_frames(decoded: Tensor) -> list[Image.Image]:
    coloured, _ = mosaic.coloured_tiles(decoded)
    pixels = (coloured * 255).round().byte().permute(0, 2, 3, 1).numpy()
    frames = [Image.fromarray(p) for p in pixels]
    scale = max(1, round(FRAME_PIXELS / max(frames[0].size)))
    size = (frames[0].width * scale, frames[0].height * scale)
    return [frame.resize(size, Image.Resampling.NEAREST) for frame in frames]


def _curve_frames(decoded: Tensor, curve_axes: CurveAxes | None, title: str) -> list[Image.Image]:
    drawn = style.finite_array(decoded)
    x, x_label, y_label = curves.axes_or_index(curve_axes, drawn.shape[1])
    figure, (ax,) = style.panels(1, 1, (4.8, 3.2))
    curves.draw_curve(ax, x, drawn[0], color=style.PALETTE[0])
    (line,) = ax.get_lines()
    leaving = curves.frame_curves(ax, x, drawn)
    style.name_axes(ax, x_label, y_label)
    style.set_title(figure, title, [curves.leaving_note(leaving, len(drawn))])
    frames = []
    for y in drawn:
        line.set_ydata(y)
        frames.append(Image.fromarray(image_array(figure)))
        figure.set_layout_engine("none")  # laid out once: nothing may move between frames
    return frames
