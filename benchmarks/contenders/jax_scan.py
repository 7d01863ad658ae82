"""JAX, the choice of a user who wants speed: the whole epoch is one jitted scan. MLP only."""

import time
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax, random

from benchmarks import data
from benchmarks.contenders.task import Task, peak_memory_mib
from benchmarks.measurement import Measured
from benchmarks.workloads import Work

Params = list[dict[str, Any]]


def run(task: Task) -> Measured:
    """Train and measure; the first epoch compiles."""
    work = task.work
    train, test = data.load(work, task.folder)
    device = jax.devices("cpu")[0] if task.device == "cpu" else jax.devices()[0]
    # converted once: faster by a sixth than bytes converted in the step, for four times the memory
    floats = train.reshape(len(train), -1).astype(np.float32) / 255
    images = jax.device_put(floats, device)
    key, init = random.split(jax.device_put(random.key(task.seed), device))
    params = initialised(init, work)
    optimizer = optax.adam(work.lr)
    # placed like the epoch's own output; else the second call, which is timed, compiles again
    state = jax.device_put((params, optimizer.init(params)), device)
    epoch = epoch_function(work, optimizer)
    seconds, loss = [], float("nan")
    for _ in range(work.epochs):
        key, now = random.split(key)
        started = time.perf_counter()
        state, total = epoch(state, images, now)
        loss = float(total) / work.examples  # waits for the epoch's end
        seconds.append(time.perf_counter() - started)
    return Measured(
        work.examples,
        seconds[1:],
        train_loss=loss,
        peak_memory_mib=peak_memory_mib(),  # before torch is loaded
        test_elbo=_test_elbo(work, state[0], test),
        details={"compile_seconds": seconds[0] - seconds[-1], "device": str(device)},
    )


def epoch_function(work: Work, optimizer: Any) -> Any:
    """Return the jitted epoch: (state, images [N, P] in [0, 1], key) -> state, loss in nats."""
    full, rest = divmod(work.examples, work.batch_size)

    def step(state: Any, images: Any, index: Any, key: Any) -> Any:
        params, memory = state
        x = images[index]
        loss, gradients = jax.value_and_grad(batch_loss)(params, x, key, len(work.widths))
        updates, memory = optimizer.update(gradients, memory, params)
        return (optax.apply_updates(params, updates), memory), loss

    @jax.jit
    def epoch(state: Any, images: Any, key: Any) -> Any:
        order_key, noise_key = random.split(key)
        order = random.permutation(order_key, work.examples)
        keys = random.split(noise_key, full + 1)
        batches = order[: full * work.batch_size].reshape(full, work.batch_size)
        state, losses = lax.scan(lambda s, b: step(s, images, *b), state, (batches, keys[:full]))
        total = losses.sum()
        if rest:  # the last, smaller batch is trained on too
            state, loss = step(state, images, order[-rest:], keys[full])
            total += loss
        return state, total

    return epoch


def batch_loss(params: Params, x: Any, key: Any, hidden: int) -> Any:
    """Return the summed loss in nats of x [B, P]."""
    encoder, decoder = params[: hidden + 1], params[hidden + 1 :]
    mean, log_var = jnp.split(_forward(encoder, x), 2, axis=1)
    z = mean + jnp.exp(0.5 * log_var) * random.normal(key, mean.shape)
    logits = _forward(decoder, z)
    reconstruction = (jax.nn.softplus(logits) - x * logits).sum()
    return reconstruction - 0.5 * (1 + log_var - mean**2 - jnp.exp(log_var)).sum()


def initialised(key: Any, work: Work) -> Params:
    """Draw weights as torch does by default: uniform up to 1 / sqrt(inputs)."""
    pixels = int(np.prod(work.shape))
    down = [pixels, *work.widths, 2 * work.latent_dim]
    up = [work.latent_dim, *reversed(work.widths), pixels]
    params = []
    for wide, narrow in [*pairwise(down), *pairwise(up)]:
        key, first, second = random.split(key, 3)
        limit = wide**-0.5
        params.append(
            {
                "w": random.uniform(first, (wide, narrow), minval=-limit, maxval=limit),
                "b": random.uniform(second, (narrow,), minval=-limit, maxval=limit),
            }
        )
    return params


def _forward(layers: Params, x: Any) -> Any:
    for layer in layers[:-1]:
        x = jax.nn.relu(x @ layer["w"] + layer["b"])
    return x @ layers[-1]["w"] + layers[-1]["b"]


def _test_elbo(work: Work, params: Params, test: data.Bytes) -> float:
    """Measure the weights with the torch function that measures all contenders."""
    import torch

    from benchmarks.networks import Network, test_elbo

    network = Network(work)
    layers = [m for m in network.modules() if isinstance(m, torch.nn.Linear)]
    with torch.no_grad():
        for layer, found in zip(layers, params, strict=True):
            layer.weight.copy_(torch.from_numpy(np.array(found["w"])).T)
            layer.bias.copy_(torch.from_numpy(np.array(found["b"])))
    return test_elbo(network, torch.from_numpy(test))
