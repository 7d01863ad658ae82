"""How many codes a second log p(x) takes, by the codes at once: python -m benchmarks.nll.

The last row is the number that `vae-eval task=nll` chooses; the floor is the decoder alone, by the
best number of codes at once. Sizes take turns, medians over the rounds.
"""

import argparse
import time
from statistics import median

import torch

from benchmarks import environment
from vae_cli.config.compose import settings_of
from vae_cli.console import table
from vae_cli.training import evaluation
from vae_cli.vae.vae import VAE, build_vae

SHAPE, EXAMPLES, CODES = (1, 28, 28), 50, {"mlp_vae": 2000, "conv_vae": 200}
AT_ONCE = (50, 150, 300, 1200, 5300)


def codes_per_second(vae: VAE, codes: int, at_once: int) -> float:
    """Time log p(x) of random images with `codes` codes each, `at_once` codes at a time."""
    chosen = evaluation.codes_at_once
    evaluation.codes_at_once = lambda vae, labels: at_once
    try:
        x, started = torch.rand(EXAMPLES, *SHAPE).round(), time.perf_counter()
        evaluation.log_likelihood(vae, [(x, None)], codes, torch.Generator())
    finally:
        evaluation.codes_at_once = chosen
    return EXAMPLES * codes / (time.perf_counter() - started)


@torch.no_grad()
def decoded_per_second(vae: VAE, codes: int, at_once: int) -> float:
    """Time the decoder alone."""
    z, calls = torch.randn(1, at_once, vae.latent_dim), max(1, EXAMPLES * codes // at_once)
    started = time.perf_counter()
    for _ in range(calls):
        vae.decode(z)
    return calls * at_once / (time.perf_counter() - started)


def main(rounds: int) -> None:
    """Print a table for each network."""
    print(environment.in_a_line(environment.describe()), end="\n\n")
    for model, codes in CODES.items():
        vae = build_vae(settings_of("config", [f"model={model}"]), SHAPE).eval()
        sizes = [*AT_ONCE, evaluation.codes_at_once(vae, None)]
        found = [[codes_per_second(vae, codes, n) for n in sizes] for _ in range(rounds)]
        floor = max(median(decoded_per_second(vae, codes, n) for _ in range(3)) for n in AT_ONCE)
        speeds = [median(column) for column in zip(*found, strict=True)]
        lines = {
            f"{n:,}": f"{s:,.0f} ({s / floor:.0%})" for n, s in zip(sizes, speeds, strict=True)
        }
        print(f"{model}: codes at once, codes a second (of the floor, {floor:,.0f})")
        print(table(lines), end="\n\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nll", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    main(parser.parse_args().rounds)
