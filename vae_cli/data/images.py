"""A folder of images: found, decoded at one size, and kept in memory or decoded when needed."""

import glob
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
from PIL import Image, ImageOps, features
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.contrib.concurrent import thread_map

from vae_cli.config.datasets import ImageFolderConfig
from vae_cli.console import RunFailed, UserError, count, one_line, say
from vae_cli.data.dataset import Data, Split, fingerprint
from vae_cli.data.splits import carve, carve_validation

CPU = torch.device("cpu")
AVIF = "avif" in features.get_supported()
# Pillow's EPS runs a program
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP", *["AVIF"] * AVIF)
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".jfif", ".jfi", ".jpe", ".png", ".apng", ".tif",
            ".tiff", ".webp", ".pbm", ".pgm", ".pnm", ".ppm", *[".avif"] * AVIF)  # fmt: skip
# files that often lie beside images, and are none
SIDE = (".txt", ".json", ".csv", ".tsv", ".xml", ".yaml", ".md", ".html", ".ini", ".db")
SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test"}  # folders
SPLITS |= dict.fromkeys(("val", "valid", "validation"), "val")
CORES = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
SHARE = 1 / 3  # of the memory, for images that are there twice while they are split


def load(config: ImageFolderConfig, data_dir: Path) -> Data:
    """Find, decode or check, and split the images; damaged files are named and left out."""
    root = Path(config.path).expanduser()
    names = find(root)
    fit = len(names) * config.channels * config.size**2 <= SHARE * memory()
    in_memory = fit if config.in_memory == "auto" else config.in_memory

    def read(name: str) -> Tensor | str | float:
        path = os.path.join(root, name)
        try:
            if not in_memory:
                with _opened(path) as image:
                    if image.mode != "F":
                        image.verify()
                        return 0.0
            x = square(path, config.size, config.channels)
        except RunFailed as error:
            return str(error)
        return x if in_memory else float(x.max())

    results = thread_map(read, names, desc="images", leave=False, disable=None)
    damaged = [x for x in results if isinstance(x, str)]
    names = [name for name, x in zip(names, results, strict=True) if not isinstance(x, str)]
    kept = [x for x in results if not isinstance(x, str)]
    if damaged:
        say(f"skipped {len(damaged)} of {len(results)} files: {'; '.join(damaged[:20])}")
    if not names:
        raise UserError(f"dataset.path={config.path}: no images in it ({' '.join(SUFFIXES)})")
    if not in_memory:
        say(f"{len(names):,} images stay on the disk")
    maxima = [x if isinstance(x, float) else x.is_floating_point() * float(x.max()) for x in kept]
    largest = max(maxima)
    white = next((white for white in (1.0, 255.0) if largest <= 2 * white), 65535.0)
    if largest:
        say(f"images of floating-point numbers, up to {largest:g}: {white:g} is white in all")
    train, val, test, class_names = splits(names, config)

    def of(split: Split) -> Split:
        index = split.x[:].tolist()
        if in_memory:
            x = [as_bytes(cast(Tensor, kept[i]), config.channels, white) for i in index]
            return replace(split, x=torch.stack(x))
        files = tuple(os.path.join(root, names[i]) for i in index)
        return replace(split, x=Images(files, config.size, config.channels, white))

    images = (of(train), None if val is None else of(val), of(test))
    sizes = [f"{name} {os.path.getsize(os.path.join(root, name))}" for name in names]
    digest = fingerprint(*sizes)
    return Data(config.name, *images, class_names, binarize=config.binarize, digest=digest)


def splits(
    names: list[str], config: ImageFolderConfig
) -> tuple[Split, Split | None, Split, tuple[str, ...]]:
    """Split by folders train/ and test/ or val/, or by drawing -> numbers of the names; classes."""
    folders = [SPLITS.get(n.partition("/")[0].lower()) if "/" in n else None for n in names]
    own = {"train", "test"} <= set(folders) or {"train", "val"} <= set(folders)
    kept = [i for i, folder in enumerate(folders) if folder or not own]
    labels, class_names = classes([names[i].partition("/")[2] if own else names[i] for i in kept])
    whole, given = Split(torch.tensor(kept), labels), dict[str | None, Split]()
    for part in set(folders) - {None} if own else ():
        given[part] = whole.take(torch.tensor([folders[i] == part for i in kept]).nonzero()[:, 0])
        size = {"test": config.test_size, "val": config.val_size}.get(part or "")
        if size is not None:
            line = f"{config.path} has a folder for these images; leave the setting out"
            raise UserError(f"dataset.{part}_size={size}: {line}")
    if len(kept) < len(names):
        left = count(len(names) - len(kept), "image")
        say(f"left out {left} beside train/ and the other splits")
    train, test, val = given.get("train", whole), given.get("test"), given.get("val")
    if test is None:
        train, test = carve(train, config.test_size, "test_size")
    if val is None:
        train, val = carve_validation(train, config.val_size)
    return train, val, test, class_names


def find(root: Path) -> list[str]:
    """List the images in and below a folder, without hidden ones -> relative names, sorted.

    Say how many other files there are, if they are none that often lie beside images.
    """
    names = {n.replace(os.sep, "/") for n in glob.iglob("**", root_dir=root, recursive=True)}
    images = sorted(name for name in names if name.lower().endswith(SUFFIXES))
    others = [n for n in names.difference(images) if not n.lower().endswith(SIDE)]
    suffixes = Counter(Path(n).suffix.lower() or "none" for n in others if (root / n).is_file())
    if suffixes:
        say(f"ignored {suffixes.total()} files ({', '.join(sorted(suffixes))})")
    return images


def memory() -> int:
    """Return the bytes that Linux has available (elsewhere 8 GiB), at most those of the GPU."""
    info = Path("/proc/meminfo")
    text = info.read_text() if info.exists() else "MemAvailable: 8388608 kB"
    gpu = torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else 1 << 60
    return min(int(text.partition("MemAvailable:")[2].split()[0]) << 10, gpu)


def classes(names: list[str]) -> tuple[Tensor | None, tuple[str, ...]]:
    """Label images by their first-level subfolder -> labels [N], the names of the subfolders.

    None and () unless every image lies in a subfolder and there are at least two subfolders. Say
    which image lies beside them.
    """
    folders = [name.partition("/")[0] if "/" in name else "" for name in names]
    distinct, labels = np.unique(folders, return_inverse=True)
    if len(distinct) < 2 or "" in distinct:
        if len(distinct) > 2:
            stray = f"{count(folders.count(''), 'image')} outside of folders"
            line = f"{stray}, such as {names[folders.index('')]}; else the folders are classes"
            say(f"note: no labels, because of {line}")
        return None, ()
    return torch.from_numpy(labels), tuple(map(str, distinct))


@dataclass(frozen=True)
class Images:
    """Image files, indexed like a uint8 tensor [N, C, H, W]; every look decodes them anew."""

    files: tuple[str, ...]
    size: int
    channels: int
    white: float = 1.0  # of floating-point images
    device: torch.device = CPU
    dtype: ClassVar[torch.dtype] = torch.uint8

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self.files), self.channels, self.size, self.size))

    def __getitem__(self, index: slice | Tensor) -> Tensor:
        """Decode some images. index: a slice or [B] int64 -> [B, C, H, W] on the device."""
        place = index.cpu() if isinstance(index, Tensor) else index
        rows = torch.arange(len(self.files))[place].tolist()
        squares = [square(self.files[row], self.size, self.channels) for row in rows]
        x = [as_bytes(image, self.channels, self.white) for image in squares]
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
            error.__traceback__ = None  # it holds the loader, which would end only 10 s later
            raise RunFailed(str(error).rpartition("RunFailed: ")[2].strip()) from None


@contextmanager
def _opened(path: str) -> Iterator[Image.Image]:
    """Open an image. Raises RunFailed naming the file for whatever Pillow raises in the block."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            yield image
    except Exception as error:  # its decoders raise nearly any exception on a damaged file
        raise RunFailed(f"{path} cannot be decoded: {one_line(error)}") from error


def as_bytes(x: Tensor, channels: int, white: float) -> Tensor:
    """Turn what `square` gave into [channels, size, size] uint8; `white` of floats becomes 255."""
    if x.is_floating_point():
        x = (x.clamp(0, white) * (255 / white)).round().byte().expand(channels, -1, -1)
    return x


def square(path: str, size: int, channels: int) -> Tensor:
    """Decode the largest centred square of an image at `size` pixels.

    -> [channels, size, size] uint8 or, of floating-point numbers, [1, size, size] float32.
    Antialiased; the first frame of several; turned as its EXIF orientation says; transparency on
    white. channels: 1 for grey (ITU-R 601 luma), 3 for RGB. Raises RunFailed naming the file.
    """
    mode = "L" if channels == 1 else "RGB"
    with _opened(path) as image:
        # a JPEG is decoded at 1/2, 1/4 or 1/8 where that leaves twice the pixels needed
        image.draft(mode, (2 * size, 2 * size))
        clear, deep = image.info.get("transparency"), "16B" in str(getattr(image, "tile", ""))
        if deep and isinstance(clear, tuple):  # Pillow keeps the first 8 of the pixels' 16 bits
            image.info["transparency"] = tuple(level >> 8 for level in clear)
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode == "F":
            if not np.isfinite(np.asarray(image)).all():
                raise ValueError("it holds NaN or infinity")
            mode = "F"
        elif image.mode.startswith("I"):  # more than 8 bits
            values = np.asarray(image).astype(np.float64)
            if clear is not None:
                values[values == clear] = 65535
            image = Image.fromarray(np.rint(values.clip(0, 65535) / 257).astype(np.uint8))
        elif image.has_transparency_data:
            above = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", above.size, "white"), above)
        fitted = ImageOps.fit(image.convert(mode), (size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(fitted)).view(size, size, -1).permute(2, 0, 1)
