import ctypes
import os
import sys
from pathlib import Path

import pytest
import torch

from vae_cli import cpu


def running(monkeypatch, *counts):
    """/proc/loadavg as it is read, time after time; its averages are those of a busy machine."""
    texts = iter([f"9.00 9.00 9.00 {count}/345 6789\n" for count in counts])
    monkeypatch.setattr(cpu.Path, "read_text", lambda path: next(texts))


@pytest.mark.parametrize(
    ("counts", "polite"),
    [((1, 1, 1, 1, 1), False), ((3, 3, 3, 3, 3), True), ((1, 9, 1, 9, 1), False)],
    ids=["quiet", "busy", "quiet but for moments"],
)
def test_a_busy_machine_is_used_politely(monkeypatch, counts, polite):
    monkeypatch.delenv(cpu._SPINS, raising=False)
    running(monkeypatch, *counts)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    cpu.before_torch()
    assert (cpu._SPINS in os.environ) == polite
    os.environ.pop(cpu._SPINS, None)


def test_a_system_that_does_not_tell_how_busy_it_is(monkeypatch):
    monkeypatch.setattr(cpu, "Path", lambda name: Path("/does/not/exist"))
    assert cpu._running_elsewhere() == 0


def test_what_the_user_has_set_stays(monkeypatch):
    monkeypatch.setenv(cpu._SPINS, "77")
    running(monkeypatch, *[99] * 5)
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
