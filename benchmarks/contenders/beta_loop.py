"""The loop of the Beta tutorial: a step has one curve and two .item(). See beta_pdf_exact."""

import time

import torch
from torch import Tensor, nn

from benchmarks.contenders.task import Task, peak_memory_mib
from benchmarks.measurement import Measured

CURVES, POINTS, HIDDEN, LATENT = 5_000, 100, 256, 2
LR = 1e-4
WARM_UP = 100  # steps that are not timed


class Network(nn.Module):
    """The network 100-256-2 and back, with noise from torch.distributions as in the tutorial."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(POINTS, HIDDEN)
        self.mean, self.log_var = nn.Linear(HIDDEN, LATENT), nn.Linear(HIDDEN, LATENT)
        self.decoder = nn.Sequential(
            nn.Linear(LATENT, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, POINTS)
        )
        self.normal = torch.distributions.Normal(0, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map a curve [P] to its reconstruction [P] and the KL, a scalar in nats."""
        hidden = torch.relu(self.hidden(x))
        mean, log_var = self.mean(hidden), self.log_var(hidden)
        sigma = torch.exp(log_var / 2)
        z = mean + sigma * self.normal.sample(mean.shape).to(x.device)
        return self.decoder(z), ((sigma**2 + mean**2 - log_var - 1) / 2).sum()


def run(task: Task) -> Measured:
    """Time `task.limit` steps. 100 epochs have 500,000 steps: the rest is extrapolated."""
    device = torch.device(task.device)
    steps = task.limit or CURVES
    torch.manual_seed(0)
    a, b = torch.distributions.Uniform(0, 5).sample((CURVES, 2)).unbind(1)
    grid = torch.linspace(0.01, 0.99, POINTS)
    curves = torch.distributions.Beta(a[:, None], b[:, None]).log_prob(grid)
    torch.manual_seed(task.seed)
    network = Network().to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=LR)
    for x in curves[:WARM_UP]:
        step(network, optimizer, x.to(device))
    total, started = 0.0, time.perf_counter()
    for x in curves[WARM_UP : WARM_UP + steps]:
        total += step(network, optimizer, x.to(device))
    seconds = time.perf_counter() - started
    return Measured(steps, [seconds], train_loss=total / steps, peak_memory_mib=peak_memory_mib())


def step(network: Network, optimizer: torch.optim.Optimizer, x: Tensor) -> float:
    """Update the weights from one curve [P]. Returns squared error + KL."""
    optimizer.zero_grad()
    reconstructed, kl = network(x)
    difference = ((x - reconstructed) ** 2).sum()
    total: float = difference.item() + kl.item()
    (difference + kl).backward()
    optimizer.step()
    return total
