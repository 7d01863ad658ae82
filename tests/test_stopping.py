import os
import signal

import pytest

from vae_cli.stopping import Interrupted, stop_signals


@pytest.mark.parametrize(
    ("number", "by_signal"),
    [(signal.SIGINT, False), (signal.SIGTERM, True), (signal.SIGUSR1, True)],
)
def test_a_signal_waits_for_the_next_question(number, by_signal):
    before = signal.getsignal(number)
    with stop_signals() as stop:
        stop.check()
        os.kill(os.getpid(), number)
        assert stop.requested == number
        with pytest.raises(Interrupted) as interrupted:
            stop.check()
        assert interrupted.value.by_signal is by_signal
    assert signal.getsignal(number) is before


def test_a_second_signal_does_not_wait():
    with stop_signals(), pytest.raises(Interrupted):
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGINT)
