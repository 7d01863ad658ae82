"""The loop of most tutorials: torchvision's dataset, ToTensor, an eager step, .item() each step."""

import time

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision.datasets import MNIST
from torchvision.transforms import ToTensor

from benchmarks import data
from benchmarks.contenders.task import Task, peak_memory_mib
from benchmarks.measurement import Measured
from benchmarks.networks import Network, kl, test_elbo

Example = tuple[Tensor, int]


class Pictures(Dataset[Example]):
    """Images in memory, decoded as in torchvision's own datasets: through PIL and ToTensor."""

    def __init__(self, images: data.Bytes) -> None:
        # [N, H, W] grey, [N, H, W, 3] colour
        self.images = images[:, 0] if images.shape[1] == 1 else images.transpose(0, 2, 3, 1)
        self.transform = ToTensor()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Example:
        return self.transform(Image.fromarray(self.images[index])), 0


def run(task: Task) -> Measured:
    """Train and measure."""
    work, device = task.work, torch.device(task.device)
    train, test = data.load(work, task.folder)
    torch.manual_seed(task.seed)
    loader = DataLoader(dataset(task, train), work.batch_size, shuffle=True, num_workers=0)
    network = Network(work).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=work.lr)
    seconds, total = [], 0.0
    for _ in range(work.epochs):
        network.train()
        started, total = time.perf_counter(), 0.0
        for x, _label in loader:
            total += step(network, optimizer, x.to(device))
        seconds.append(time.perf_counter() - started)
    peak = peak_memory_mib()
    return Measured(
        work.examples,
        seconds[1:],
        train_loss=total / work.examples,
        test_elbo=test_elbo(network.cpu(), torch.from_numpy(test)),
        peak_memory_mib=peak,
    )


def dataset(task: Task, train: data.Bytes) -> Dataset[Example]:
    """Return torchvision's own MNIST, or other images as `Pictures`."""
    if task.work.data != "mnist":
        return Pictures(train)
    mnist: Dataset[Example] = MNIST(str(task.folder), train=True, transform=ToTensor())
    return Subset(mnist, range(task.work.examples))


def step(network: Network, optimizer: torch.optim.Optimizer, x: Tensor) -> float:
    """Update the weights from x [B, C, H, W] in [0, 1]. Returns the batch's summed loss in nats."""
    optimizer.zero_grad()
    mean, log_var = network.encode(x)
    z = mean + (0.5 * log_var).exp() * torch.randn_like(mean)
    reconstructed = torch.sigmoid(network.decode(z))
    loss = F.binary_cross_entropy(reconstructed, x, reduction="sum") + kl(mean, log_var)
    loss.backward()
    optimizer.step()
    return loss.item()
