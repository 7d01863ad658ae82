import pickle
from pathlib import Path

import pytest

from vae_cli import cli
from vae_cli.jobs import Job, Workers, dealt


@pytest.mark.parametrize(
    ("visible", "count", "expected"),
    [
        (None, 0, [None] * 4),  # no GPU
        (None, 1, [None] * 4),  # one: nothing to deal
        (None, 3, ["0", "1", "2", "0"]),
        ("4,7", 0, ["4", "7", "4", "7"]),
        ("GPU-a,GPU-b", 0, ["GPU-a", "GPU-b", "GPU-a", "GPU-b"]),
        ("5", 0, [None] * 4),
        ("", 0, [None] * 4),  # hidden on purpose
    ],
)
def test_gpus_are_dealt_round_robin(visible, count, expected):
    assert [dealt(number, visible, count) for number in range(4)] == expected


def test_a_job_can_travel_to_another_process():
    job = Job(cli._job, ("beta",), 5, Workers(1, Path("stop"), 2, True), {3: "a watcher"})
    assert pickle.loads(pickle.dumps(job)) == job
