"""pythae's own trainer with its defaults and our network. MLP only."""

import logging
import tempfile
import time
from typing import Any

import torch
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from pythae.trainers.training_callbacks import TrainingCallback
from torch import Tensor

from benchmarks import data
from benchmarks.contenders.task import Task, peak_memory_mib
from benchmarks.measurement import Measured
from benchmarks.networks import Network, test_elbo


class Encoder(BaseEncoder):
    """The network's encoder with pythae's interface."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network.encoder

    def forward(self, x: Tensor) -> Any:
        mean, log_var = self.network(x).chunk(2, dim=1)
        return ModelOutput(embedding=mean, log_covariance=log_var)


class Decoder(BaseDecoder):
    """The network's decoder with pythae's interface: its loss takes probabilities."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network.decoder

    def forward(self, z: Tensor) -> Any:
        return ModelOutput(reconstruction=torch.sigmoid(self.network(z)))


class Clock(TrainingCallback):
    """Notes the times of the epochs and the trainer's own loss."""

    def __init__(self) -> None:
        self.began: list[float] = []
        self.ended: list[float] = []
        self.loss = float("nan")

    def on_epoch_begin(self, training_config: Any, **others: Any) -> None:
        self.began.append(time.perf_counter())

    def on_epoch_end(self, training_config: Any, **others: Any) -> None:
        self.ended.append(time.perf_counter())

    def on_log(self, training_config: Any, logs: dict[str, float], **others: Any) -> None:
        self.loss = logs["train_epoch_loss"]


def run(task: Task) -> Measured:
    """Train and measure. The loss is the mean of the batches' means, as pythae reports it."""
    work = task.work
    logging.disable(logging.INFO)
    train, test = data.load(work, task.folder)
    images = torch.from_numpy(train).float().div(255)
    torch.manual_seed(task.seed)
    network = Network(work)
    model = VAE(
        VAEConfig(input_dim=work.shape, latent_dim=work.latent_dim, reconstruction_loss="bce"),
        encoder=Encoder(network),
        decoder=Decoder(network),
    )
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        config = BaseTrainerConfig(
            output_dir=folder,
            num_epochs=work.epochs,
            per_device_train_batch_size=work.batch_size,
            learning_rate=work.lr,
            keep_best_on_train=True,  # without validation data nothing else is kept
            seed=task.seed,
            no_cuda=task.device == "cpu",
        )
        labels = torch.zeros(len(images))
        trainer = BaseTrainer(model, BaseDataset(images, labels), None, config, [clock])
        trainer.train()
    peak = peak_memory_mib()
    seconds = [end - begin for begin, end in zip(clock.began, clock.ended, strict=True)]
    return Measured(
        work.examples,
        seconds[1:],
        train_loss=clock.loss,
        test_elbo=test_elbo(network.cpu(), torch.from_numpy(test)),
        peak_memory_mib=peak,
    )
