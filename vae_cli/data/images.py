"""A folder of images: found, decoded at one size, and kept in memory or decoded when needed."""

import glob
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.contrib.concurrent import thread_map

from vae_cli.config.datasets import ImageFolderConfig
from vae_cli.console import RunFailed, UserError, one_line, say
from vae_cli.data.dataset import Data, Split, carve, carve_validation, fingerprint

CPU = torch.device("cpu")
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # Pillow's EPS runs a program
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
CORES = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
SHARE = 1 / 3  # of the memory, for images that are there twice while they are split


def load(config: ImageFolderConfig, data_dir: Path) -> Data:
    """Find, decode or check, and split the images; damaged files are named and left out."""
    root = Path(config.path).expanduser()
    names = find(root)
    fit = len(names) * config.channels * config.size**2 <= SHARE * memory()
    in_memory = fit if config.in_memory == "auto" else config.in_memory

    def read(name: str) -> Tensor | str | None:
        try:
            if in_memory:
                return decode(os.path.join(root, name), config.size, config.channels)
            with _opened(os.path.join(root, name)) as image:
                image.verify()
        except RunFailed as error:
            return str(error)
        return None

    results = thread_map(read, names, desc="images", leave=False, disable=None)
    damaged = [x for x in results if isinstance(x, str)]
    names = [name for name, x in zip(names, results, strict=True) if not isinstance(x, str)]
    pixels = [x for x in results if not isinstance(x, str)]
    if damaged:
        say(f"skipped {len(damaged)} of {len(results)} files: {'; '.join(damaged[:20])}")
    if not names:
        raise UserError(f"dataset.path={config.path}: no images in it ({' '.join(SUFFIXES)})")
    if not in_memory:
        say(f"{len(names):,} images stay on the disk")
    labels, class_names = classes(names)
    rest, test = carve(Split(torch.arange(len(names)), labels), config.test_size, "test_size")
    train, val = carve_validation(rest, config.val_size)

    def of(split: Split) -> Split:
        index = split.x[:].tolist()
        if in_memory:
            return replace(split, x=torch.stack([pixels[i] for i in index]))
        files = tuple(os.path.join(root, names[i]) for i in index)
        return replace(split, x=Images(files, config.size, config.channels))

    images = (of(train), None if val is None else of(val), of(test))
    sizes = [f"{name} {os.path.getsize(os.path.join(root, name))}" for name in names]
    digest = fingerprint(*sizes)
    return Data(config.name, *images, class_names, binarize=config.binarize, digest=digest)


def find(root: Path) -> list[str]:
    """List the images in and below a folder, without hidden ones -> relative names, sorted."""
    names = glob.iglob("**", root_dir=root, recursive=True)
    return sorted(name.replace(os.sep, "/") for name in names if name.lower().endswith(SUFFIXES))


def memory() -> int:
    """Return the bytes that Linux has available (elsewhere 8 GiB), at most those of the GPU."""
    info = Path("/proc/meminfo")
    text = info.read_text() if info.exists() else "MemAvailable: 8388608 kB"
    gpu = torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else 1 << 60
    return min(int(text.partition("MemAvailable:")[2].split()[0]) << 10, gpu)


def classes(names: list[str]) -> tuple[Tensor | None, tuple[str, ...]]:
    """Label images by their first-level subfolder -> labels [N], the names of the subfolders.

    None and () unless every image lies in a subfolder and there are at least two subfolders.
    """
    folders = [name.partition("/")[0] if "/" in name else "" for name in names]
    distinct, labels = np.unique(folders, return_inverse=True)
    if len(distinct) < 2 or "" in distinct:
        return None, ()
    return torch.from_numpy(labels), tuple(map(str, distinct))


@dataclass(frozen=True)
class Images:
    """Image files, indexed like a uint8 tensor [N, C, H, W]; every look decodes them anew."""

    files: tuple[str, ...]
    size: int
    channels: int
    device: torch.device = CPU
    dtype: ClassVar[torch.dtype] = torch.uint8

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self.files), self.channels, self.size, self.size))

    def __getitem__(self, index: slice | Tensor) -> Tensor:
        """Decode some images. index: a slice or [B] int64 -> [B, C, H, W] on the device."""
        rows = torch.arange(len(self.files))[index].tolist()
        x = [decode(self.files[row], self.size, self.channels) for row in rows]
        return torch.stack(x).to(self.device)

    def to(self, device: torch.device) -> "Images":
        """Give batches on another device."""
        return replace(self, device=device)

    def batches(self, order: Tensor | None, size: int) -> Iterator[Tensor]:
        """Yield batches, decoded in other processes ahead of their use. Raises RunFailed."""
        order = torch.arange(len(self.files)) if order is None else order.cpu()
        parts: Any = order.split(size)
        loader = DataLoader(
            parts,
            batch_size=None,
            collate_fn=cast(Any, self.to(CPU).__getitem__),
            num_workers=min(8, CORES, len(parts)),
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # without it, the loader draws from the global one
            multiprocessing_context="fork" if sys.platform == "linux" else None,  # starts at once
        )
        try:
            for raw in loader:
                yield raw.to(self.device, non_blocking=True)
        except RunFailed as error:  # torch puts the traceback of the process before the message
            raise RunFailed(str(error).rpartition("RunFailed: ")[2].strip()) from None


@contextmanager
def _opened(path: str) -> Iterator[Image.Image]:
    """Open an image. Raises RunFailed naming the file for whatever Pillow raises in the block."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            yield image
    except Exception as error:  # its decoders raise nearly any exception on a damaged file
        raise RunFailed(f"{path} cannot be decoded: {one_line(error)}") from error


def decode(path: str, size: int, channels: int) -> Tensor:
    """Decode the largest centred square of an image at `size` pixels. -> [channels, size, size].

    Antialiased; the first frame of several; turned as its EXIF orientation says; transparency on
    white. channels: 1 for grey (ITU-R 601 luma), 3 for RGB. Raises RunFailed naming the file.
    """
    mode = "L" if channels == 1 else "RGB"
    with _opened(path) as image:
        # a JPEG is decoded at 1/2, 1/4 or 1/8 where that leaves twice the pixels needed
        image.draft(mode, (2 * size, 2 * size))
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode == "F" or image.mode.startswith("I"):  # more than 8 bits
            values = np.asarray(image).astype(np.float64)
            white = 65535 if image.mode != "F" else 1 if values.max() <= 1 else 255
            eight_bits = np.rint(values.clip(0, white) * (255 / white)).astype(np.uint8)
            image = Image.fromarray(eight_bits)
        elif image.has_transparency_data:
            above = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", above.size, "white"), above)
        square = ImageOps.fit(image.convert(mode), (size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(square)).view(size, size, channels).permute(2, 0, 1)
