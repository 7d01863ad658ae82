import math

import pytest
import torch
from torch.distributions import Bernoulli, Normal

from vae_cli.training.build import load_data
from vae_cli.training.state import Meter, TrainState
from vae_cli.vae.objectives import Weight
from vae_cli.vae.vae import build_vae

CPU = torch.device("cpu")


def meter_of(*steps: tuple[float, int], capacity: int = 4) -> Meter:
    """A meter with a row for each (loss, examples)."""
    meter = Meter(capacity, CPU)
    for loss, examples in steps:
        add(meter, loss, examples)
    return meter


def add(meter: Meter, loss: float, examples: int) -> None:
    meter.write(("loss", "kl"), torch.tensor([loss, 2 * loss]))
    meter.counts.append(examples)


def test_means_weigh_examples_and_not_batches():
    meter = meter_of((1.0, 3), (5.0, 1))
    assert meter.read() == {"loss": 2.0, "kl": 4.0}
    add(meter, 6.0, 4)
    assert meter.read()["loss"] == 6.0
    assert meter.epoch() == {"loss": 4.0, "kl": 8.0}  # of both reads
    assert meter.epoch() == {}  # the next epoch has none yet


@pytest.mark.parametrize("capacity", [1, 4])
def test_a_read_that_a_checkpoint_interrupts_gives_the_same_means(capacity):
    whole = meter_of((1.0, 2), (2.0, 2), (4.0, 1))
    again = Meter(capacity, CPU)
    again.load_state_dict(meter_of((1.0, 2), (2.0, 2)).state_dict())
    add(again, 4.0, 1)
    assert again.read() == whole.read()
    assert again.epoch() == whole.epoch()


def test_rows_that_are_not_finite_are_counted_and_left_out():
    meter = meter_of((1.0, 1), (math.nan, 1), (3.0, 1), (math.inf, 1))
    assert meter.read()["loss"] == 2.0
    assert meter.epoch() == {"loss": 2.0, "kl": 4.0, "skipped": 2}
    assert meter.skipped == 0


def test_an_epoch_has_a_schedule_for_each_step(make_config):
    config = make_config(
        "dataset=digits", "batch_size=650", "beta=4", "optimizer.lr=0.5", "epochs=4",
        "beta_schedule=warmup", "beta_schedule.epochs=2", "scheduler=step",
        "scheduler.every_epochs=1", "scheduler.gamma=0.5",
    )  # fmt: skip
    state = TrainState(config, load_data(config), CPU)
    assert state.schedule().tolist() == [[0, 0, 0.5], [1, 0, 0.5]]
    state.epoch, state.step = 1, 3
    assert state.step_of_epoch == 1
    assert state.schedule().tolist() == [[2, 0, 0.25], [3, 0, 0.25]]
    assert state.point() == {"schedule/beta": 2, "schedule/lr": 0.25}


@pytest.mark.parametrize("model", ["mlp_vae", "conv_vae"])
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_a_decoder_starts_at_the_mean_of_the_training_examples(make_config, model, likelihood):
    config = make_config("dataset=digits", f"model={model}", f"likelihood={likelihood}")
    data = load_data(config)
    vae, old = TrainState(config, data, CPU).vae.eval(), build_vae(config, data.shape)
    changed = [n for n, p in vae.named_parameters() if not p.equal(old.get_parameter(n))]
    assert len(changed) == 1  # the last bias, and nothing else

    x = data.train.x  # from 0 to 1
    mean = x.mean(0) if model == "mlp_vae" else x.mean().expand(data.shape)
    if likelihood == "bernoulli":  # a pixel that no example uses: once in n + 2
        mean = mean.clamp(1 / (len(x) + 2), 1 - 1 / (len(x) + 2))
        constant = Bernoulli(mean, validate_args=False)  # the values are grey
    else:
        constant = Normal(mean, config.likelihood.sigma)
    weights = vae.get_parameter(changed[0].replace("bias", "weight"))
    noise = torch.randn(1, len(x), config.model.latent_dim)
    for tolerance in (0.05, 1e-5):  # as it starts; without what the last weights add
        terms = vae(x, noise, Weight(1.0, 0.0)).metrics
        best = constant.log_prob(x).sum((1, 2, 3)).mean() - terms["kl"]
        assert terms["elbo"].item() == pytest.approx(best.item(), rel=tolerance)
        torch.nn.init.zeros_(weights)
    torch.testing.assert_close(vae.mean(noise[0, :2]), mean.expand(2, *data.shape))


def test_the_monitored_metric_decides_and_the_warmup_comes_first(make_config):
    config = make_config("dataset=digits", "batch_size=650", "monitor=val/kl", "epochs=4")
    state = TrainState(config, load_data(config), CPU)
    state.beta = state.beta._replace(final_step=4)
    better = []
    for state.epoch, kl in enumerate((1.0, 3.0, 2.0, 2.5), 1):
        state.step = 2 * state.epoch
        better.append(state.note_best({"val/kl": kl}, config))
    assert better == [False, True, True, False]
    assert (state.best, state.best_epoch, state.waited) == (2.0, 3, 1)
    assert state.is_finished(config)
    assert not state.is_finished(config.model_copy(update={"epochs": 5}))
    assert state.is_finished(config.model_copy(update={"epochs": 5, "patience": 1}))


def test_stratified_weights_know_the_training_set_and_keep_its_size_with_the_weights(make_config):
    config = make_config("dataset=digits", "objective=beta_tcvae", "objective.estimator=stratified")
    state = TrainState(config, load_data(config), CPU)
    assert state.vae.objective.examples == 1300
    loaded = build_vae(config, (1, 8, 8))  # as vae-eval does it, without data
    loaded.load_state_dict(state.measured.state_dict())
    assert loaded.objective.examples == 1300
