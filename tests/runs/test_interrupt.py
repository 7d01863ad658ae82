import os
import signal

import pytest

from vae_cli.runs.interrupt import SIGNALS, Interrupted, interruptible, signals_interrupt


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_waits_for_the_next_question_and_a_second_one_does_not(number):
    before = signal.getsignal(number)
    with interruptible() as interrupt, pytest.raises(Interrupted) as interrupted:
        interrupt.check()
        os.kill(os.getpid(), number)
        assert interrupt.requested == number
        os.kill(os.getpid(), signal.SIGINT)
    # the first one decides the exit code
    assert interrupted.value.by_signal is (number != signal.SIGINT)
    assert signal.getsignal(number) is before
    with interruptible(patient=True) as interrupt:
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)


def test_before_a_run_a_signal_is_an_interrupt():
    with interruptible(), pytest.raises(Interrupted):  # gives the handlers back at its end
        signals_interrupt()
        os.kill(os.getpid(), signal.SIGTERM)
