"""`task=quality`: reconstructions beside their images, and samples beside the test images.

Images [N, C, H, W] have values from 0 to 1; features [N, D] of them are float64 on the CPU.
"""

import json
import math
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from zipfile import is_zipfile

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vae_cli.analysis.export import Report, measured
from vae_cli.analysis.samplers import sampler_of
from vae_cli.analysis.settings import QualityTask
from vae_cli.analysis.trained import TrainedRun
from vae_cli.console import UserError, one_line, say
from vae_cli.data.dataset import Data, epoch_order, generator
from vae_cli.data.labels import labels_of
from vae_cli.runs.files import replacing
from vae_cli.training.evaluation import BATCH

Network = Callable[[Tensor], Tensor]  # images [B, C, H, W] -> features [B, D]
WINDOW, SIGMA = 11, 1.5  # of SSIM, in pixels
NEAREST, BLOCK = 3, 1000  # neighbour that sets a radius; images that are compared at a time


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """Compute the peak signal-to-noise ratio, -10 log10(MSE), of each pair, at most 100 dB. [N]"""
    return -10 * (x - y).square().flatten(1).mean(1).clamp(min=1e-10).log10()


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Average the structural similarity of each pair over pixels and channels. -> [N]

    Wang et al. 2004: Gaussian windows that lie in the image as a whole, C1 = 0.01^2, C2 = 0.03^2.
    """
    place = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    line = (-0.5 * (place / SIGMA).square()).softmax(0)
    parts = torch.stack([x, y, x * x, y * y, x * y])
    means = F.conv2d(parts.flatten(0, 2)[:, None], torch.outer(line, line)[None, None])
    mx, my, xx, yy, xy = means.unflatten(0, parts.shape[:3])
    upper = (2 * mx * my + 0.01**2) * (2 * (xy - mx * my) + 0.03**2)
    squares = mx.square() + my.square()
    each: Tensor = upper / ((squares + 0.01**2) * (xx + yy - squares + 0.03**2))
    return each.flatten(1).mean(1)


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Compute FID (Heusel et al. 2017): |m - n|^2 + Tr(S + T - 2 (S T)^(1/2)) of features.

    With S = P'P and T = Q'Q the trace of the root is the sum of the singular values of PQ'.
    """
    p, q = (torch.linalg.qr(x - x.mean(0), mode="r").R / math.sqrt(len(x) - 1) for x in (a, b))
    shared = torch.linalg.matrix_norm(p @ q.T, "nuc")
    far = (a.mean(0) - b.mean(0)).square().sum()
    return float(far + p.square().sum() + q.square().sum() - 2 * shared)


def kernel_distance(a: Tensor, b: Tensor) -> float:
    """Compute KID (Binkowski et al. 2018), unbiased, averaged over blocks of at most BLOCK images.

    The squared maximum mean discrepancy with the kernel (x'y / D + 1)^3: 0 in expectation where
    both have one distribution, so that it can be negative.
    """

    def mean(x: Tensor, y: Tensor) -> Tensor:
        table = (x @ y.T / x.shape[1] + 1) ** 3
        if x is y:  # without the pairs of an image with itself
            return (table.sum() - table.trace()) / (len(x) * (len(x) - 1))
        return table.mean()

    blocks = math.ceil(len(a) / BLOCK)
    pairs = zip(a.tensor_split(blocks), b.tensor_split(blocks), strict=True)
    return float(torch.stack([mean(x, x) + mean(y, y) - 2 * mean(x, y) for x, y in pairs]).mean())


def covered(points: Tensor, support: Tensor) -> float:
    """Return the share of points [N, D] inside the balls around `support` [M, D].

    A ball reaches to the NEARESTth neighbour of its centre in `support` (Kynkaanniemi et al. 2019).
    Samples in the balls of real images: precision. Real images in those of samples: recall.
    """

    def distances(x: Tensor) -> Iterable[Tensor]:  # [BLOCK, M] each
        exact = "donot_use_mm_for_euclid_dist"  # an image is at the distance 0 from itself
        return (torch.cdist(rows, support, compute_mode=exact) for rows in x.split(BLOCK))

    radii = torch.cat([table.kthvalue(NEAREST + 1).values for table in distances(support)])
    inside = torch.cat([(table <= radii).any(1) for table in distances(points)])
    return float(inside.double().mean())


def train_classifier(data: Data, steps: int) -> tuple[nn.Module, float]:
    """Train a small network to tell the labels. -> its 64 features, its accuracy on the test set.

    Always from one seed, so that runs on equal data have equal features, rounding aside.
    """
    labels, truth, device = data.train.labels, data.test.labels, data.train.x.device
    assert labels is not None
    assert truth is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers: list[nn.Module] = []
        for before, after in ((data.shape[0], 32), (32, 64), (64, 64)):
            convolution = nn.Conv2d(before, after, 3, stride=2, padding=1)
            layers += [convolution, nn.BatchNorm2d(after), nn.ReLU()]
        # each feature gets mean 0 and variance 1, so that no distance depends on their scale
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(64, affine=False)]
        network = nn.Sequential(*layers, nn.Linear(64, int(labels.max()) + 1)).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    size, source = min(128, len(labels)), generator(device, 0, "classifier")
    epochs = range(math.ceil(steps * size / len(labels)))
    order = torch.cat([epoch_order(device, 0, epoch, len(labels)) for epoch in epochs])
    batches = order[: steps * size].split(size)
    for raw, index in zip(data.train.batches(torch.cat(batches), size), batches, strict=True):
        optimizer.zero_grad()
        F.cross_entropy(network(data.prepare(raw, source)), labels[index]).backward()
        optimizer.step()
    network.requires_grad_(False).eval()
    parts = [network(data.prepare(raw, source)) for raw in data.test.batches(None, BATCH)]
    right = torch.cat(parts).argmax(1) == truth
    return network[:-1], float(right.double().mean())


def classifier(data: Data, steps: int, path: Path) -> tuple[Network, float]:
    """Read the classifier of these data from a file, or train it and write it there.

    The file gives its features alone: it can be `features=FILE` of another run.
    """
    key, about = [data.identity, data.binarize, steps], {"about": ""}
    if is_zipfile(path):  # else there is none, or half of one
        program = torch.export.load(path, extra_files=about)
        known, accuracy = json.loads(about["about"] or "[0, 0]")  # "": not of this task
        if known == key:
            return program.module().to(data.train.x.device), accuracy
    say(f"training a classifier for {steps:,} steps, in whose features images are compared")
    network, accuracy = train_classifier(data, steps)
    x, batch = data.prepare(data.train.head(2), torch.Generator()), torch.export.Dim("n", min=1)
    with warnings.catch_warnings(action="ignore"), replacing(path) as file:
        program = torch.export.export(network, (x,), dynamic_shapes=({0: batch},))
        torch.export.save(program, file, extra_files={"about": json.dumps([key, accuracy])})
    return network, accuracy


def read_network(path: Path, x: Tensor) -> Network:
    """Read a file of torch.export (.pt2) or TorchScript; try it on images x. Raises UserError."""
    try:
        with warnings.catch_warnings(action="ignore"):  # TorchScript is said to be old
            if not is_zipfile(path):  # torch would log pages
                raise ValueError("there is no such file, or it is none of these")
            if path.suffix == ".pt2":
                network: Network = torch.export.load(path).module().to(x.device)
            else:
                network = torch.jit.load(path, x.device).eval()
        if (features := network(x)).ndim != 2 or len(features) != len(x):
            raise ValueError(f"it gives {list(features.shape)}, which must be [{len(x)}, D]")
        return network
    except Exception as error:  # of whatever kind: another program wrote the file
        wanted = f"a network (.pt2 of torch.export, or TorchScript) for images {list(x.shape)}"
        raise UserError(f"features={path}: must be {wanted}: {one_line(error)}") from error


@torch.no_grad()
def run(task: QualityTask, run: TrainedRun, out: Path) -> Report:
    """Measure reconstructions, and samples in the features of a network: quality.json."""
    data, seed, compared, accuracy = run.data(), run.config.seed, {}, None
    low, high = data.value_range()
    if not run.has_images or low < 0 or high > 1:
        found = f"examples {list(run.shape)} with values from {low:g} to {high:g}"
        raise UserError(f"task=quality needs images with values from 0 to 1; there are {found}")
    source, small, pairs = generator(run.device, seed, "quality"), min(run.shape[1:]) < WINDOW, []
    for raw, labels in data.fixed(data.test, seed).labelled(None, BATCH):
        x = data.prepare(raw, source)
        y = run.given(0 if labels is None else labels).reconstruct(x).clamp(0, 1)
        pairs.append(torch.stack([psnr(x, y), psnr(x, y) if small else ssim(x, y)]).cpu())
    ratio, similarity = torch.cat(pairs, 1).double().mean(1).tolist()
    # E[x|z] is compared with the grey images, of which dynamic binarisation draws black and white
    plain = data.undrawn
    count, own = min(task.num_samples, len(data.test)), task.features == "classifier"
    lack = ""
    if task.sampler == "prior" and not run.config.samples_prior:
        lack = "a deterministic autoencoder has no prior; give sampler=gmm, flow or two_stage"
    if count <= NEAREST:
        lack = f"the test set has only {count} images"
    elif own and (data.train.labels is None or data.test.labels is None):
        lack = "the data has no labels that a classifier could learn; give features=FILE"
    if not lack:
        name = Path(task.features).stem
        if own:
            with torch.enable_grad():
                network, accuracy = classifier(plain, task.classifier_steps, out / "classifier.pt2")
        else:
            first = plain.prepare(plain.test.head(2), source)
            network = read_network(Path(task.features).expanduser(), first)
        order = torch.randperm(len(data.test), generator=source, device=run.device)[:count]
        images = (plain.prepare(raw, source) for raw in plain.test.batches(order, BATCH))
        codes = sampler_of(task, run).draw(count)
        parts = zip(codes.split(BATCH), order.split(BATCH), strict=True)
        # of a conditional model, samples of the classes that the images have
        draws = (run.given(labels_of(data, i)).decode(z).clamp(0, 1) for z, i in parts)
        real, samples = (
            torch.cat([network(x).cpu().double() for x in part]) for part in (images, draws)
        )
        compared = {
            f"fid_{name}": frechet_distance(real, samples),
            f"kid_{name}": kernel_distance(real, samples),
            f"precision_{name}": covered(samples, real),
            f"recall_{name}": covered(real, samples),
        }
    result = {
        "psnr": ratio,
        "ssim": None if small else similarity,
        **compared,
        "sampler": task.sampler if compared else None,
        "features": task.features,
        "classifier_test_accuracy": accuracy,
        "samples": count if compared else 0,
        "examples": len(data.test),
    }
    notes = {
        "psnr (dB) and ssim of test reconstructions": True,
        f"no ssim: its windows of {WINDOW} x {WINDOW} pixels do not fit": small,
        f"no comparison of samples: {lack}": lack,
        f"{count:,} samples (sampler={task.sampler}) and as many test images, in features="
        f"{task.features}": not lack,
    }
    return measured(run, out / "quality.json", result, notes)
