"""One image file: whether it is sound, and its pixels at a given size. No torch.

A file is read by Pillow's decoders for the formats below and no others (Pillow could hand a file
named .png that holds EPS to Ghostscript), and its size in pixels is known before it is decoded.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from vae_cli.errors import one_line

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
SUFFIXES = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
# beyond this a file is not decoded: 256 MiB of RGB, Pillow's own limit for its warning
MAX_PIXELS = 89_478_485
# what Pillow's decoders raise on damaged files; a Warning is raised only under `-W error`
_DECODERS_RAISE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    Warning,
    struct.error,
    zlib.error,
)


class Damaged(Exception):
    """A file that cannot be used; says why in a few words."""


def check(path: str) -> None:
    """Raise Damaged for a file that cannot be decoded.

    JPEG, PNG and WebP are not decoded for that: their header is read, a PNG's checksums are
    compared, and only a JPEG or WebP that does not end as it should is tried. Files in the other
    formats are few and small, or cheap to decode, and are decoded.
    """
    with _opened(path) as image:
        if image.format == "PNG":
            image.verify()
            return
        sound = _ends_as_it_should(path, str(image.format))
    if not sound:
        with _opened(path) as image:
            image.load()


def decode(path: str, size: int, channels: int) -> NDArray[np.uint8]:
    """The largest centred square of an image, at `size` pixels. -> [channels, size, size].

    Resized with antialiasing; the first frame of several; turned as its EXIF orientation says;
    transparency on white. channels: 1 for grey (ITU-R 601 luma), 3 for RGB. Raises Damaged.
    """
    with _opened(path) as image:
        # a JPEG is decoded at 1/2, 1/4 or 1/8 as long as that leaves twice the pixels needed
        image.draft("L" if channels == 1 else "RGB", (2 * size, 2 * size))
        image.load()
        pixels = _eight_bits(_upright(image), channels)
        fitted = ImageOps.fit(pixels, (size, size), Image.Resampling.BILINEAR)
        array = np.asarray(fitted, dtype=np.uint8).reshape(size, size, channels)
    return np.ascontiguousarray(array.transpose(2, 0, 1))


@contextmanager
def _opened(path: str) -> Iterator[Image.Image]:
    """An image whose header has been read; what goes wrong in the body is a Damaged too."""
    try:
        if not Path(path).is_file():  # opening a named pipe would wait for ever
            raise Damaged("no regular file")
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Damaged(f"{image.width}x{image.height} pixels are too many")
            yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Damaged("too many pixels") from error
    except _DECODERS_RAISE as error:
        raise Damaged(_why(error, path)) from error


def _why(error: Exception, path: str) -> str:
    if isinstance(error, UnidentifiedImageError):
        try:
            return "not an image" if Path(path).stat().st_size else "empty"
        except OSError:
            return "not an image"
    text = one_line(getattr(error, "strerror", None) or error)
    return "truncated" if "truncated" in text.lower() else text[:80] or type(error).__name__


def _ends_as_it_should(path: str, image_format: str) -> bool:
    """Whether a JPEG or WebP is whole, judged by its end alone; False for the other formats."""
    with open(path, "rb") as file:
        start = file.read(8)
        length = file.seek(0, 2)
        file.seek(max(0, length - 32))
        tail = file.read()
    if image_format in ("JPEG", "MPO"):
        return tail.rstrip(b"\0").endswith(b"\xff\xd9")  # end of image
    if image_format == "WEBP":
        return length >= 8 + int.from_bytes(start[4:8], "little")
    return False


def _upright(image: Image.Image) -> Image.Image:
    if image.getexif().get(ExifTags.Base.Orientation, 1) == 1:
        return image
    turned = ImageOps.exif_transpose(image)
    return image if turned is None else turned


def _eight_bits(image: Image.Image, channels: int) -> Image.Image:
    """Any mode of Pillow as 8-bit grey or RGB."""
    if image.mode == "F" or image.mode.startswith("I"):
        image = Image.fromarray(_levels(image))
    elif image.has_transparency_data:
        above = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", above.size, "white"), above)
    return image.convert("L" if channels == 1 else "RGB")


def _levels(image: Image.Image) -> NDArray[np.uint8]:
    """Grey of more than 8 bits in 256 levels.

    Integers: 0 to 65535 stand for black to white. Floats: 0 to 1 do, or 0 to 255 where any value
    is above 1. What lies outside is clipped.
    """
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("NaN or infinite pixels")
    white = 65535.0 if image.mode != "F" else 1.0 if values.max() <= 1 else 255.0
    levels: NDArray[np.uint8] = np.rint(values.clip(0, white) * (255 / white)).astype(np.uint8)
    return levels
