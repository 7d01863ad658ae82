import ctypes
import os
import sys

import pytest
import torch

from vae_cli import cpu


@pytest.mark.parametrize(("load", "polite"), [(0.1, False), (9.0, True)])
def test_a_busy_machine_is_used_politely(monkeypatch, load, polite):
    monkeypatch.delenv(cpu._SPINS, raising=False)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    cpu.before_torch()
    assert (cpu._SPINS in os.environ) == polite
    os.environ.pop(cpu._SPINS, None)


def test_what_the_user_has_set_stays(monkeypatch):
    monkeypatch.setenv(cpu._SPINS, "77")
    monkeypatch.setattr(os, "getloadavg", lambda: (99.0, 0.0, 0.0), raising=False)
    cpu.before_torch()
    assert os.environ[cpu._SPINS] == "77"


def test_denormal_numbers_are_flushed():
    smallest = torch.tensor([torch.finfo(torch.float32).tiny])
    try:
        cpu.tune()
        assert (smallest / 2).item() == 0 or not torch.set_flush_denormal(True)
    finally:
        torch.set_flush_denormal(False)


def test_a_libc_without_mallopt_is_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    cpu._keep_freed_memory()
