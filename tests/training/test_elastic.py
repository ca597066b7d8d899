"""The batches of a run are the same for any number of processes, also after a kill; with real processes over gloo."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from fcnseg.training.averaging import CURRENT
from tests.training import recorded
from tests.training.recorded import EPOCHS, STEPS_PER_EPOCH, Stopped, train

STEPS = EPOCHS * STEPS_PER_EPOCH
STOPPED_AND_SAVED = {"two_killed": (10, 8), "one_stopped": (5, 4)}  # in the midst of the second and the first epoch

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:The dirpath has changed")]


def run_two(folder: Path, *trainings: dict[str, Any], ends: int = 0) -> None:
    """Train on two processes, in a process group of their own, to an exit code that is expected."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PL_")} | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, recorded.__file__, "2", json.dumps(trainings)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=environment, start_new_session=True)
        try:
            code = process.wait(timeout=300)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert code == ends, (folder / "log").read_text()[-3000:]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The folder of all runs: whole ones, stopped ones, and those that went on from the stopped ones' checkpoints.

    Made once, by whichever of several test processes asks first.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "elastic_runs"
    with FileLock(folder.with_suffix(".lock")):
        if not (folder / "made").exists():
            folder.mkdir()
            make_runs(folder)
            (folder / "made").touch()
    return folder


def make_runs(folder: Path) -> None:
    after = {name: stopped for name, (stopped, _) in STOPPED_AND_SAVED.items()}
    killed = {"name": "two_killed", "workers": 1, "stop_after": after["two_killed"]}
    run_two(folder, {"name": "two"}, killed, ends=-signal.SIGKILL)
    train(folder, 1, "one")
    train(folder, 1, "two_then_one", resume="two_killed")
    with pytest.raises(Stopped):
        train(folder, 1, "one_stopped", stop_after=after["one_stopped"])
    run_two(
        folder, {"name": "two_then_two", "workers": 1, "resume": "two_killed"},
        {"name": "one_then_two", "workers": 1, "resume": "one_stopped"},
    )  # fmt: skip


def ranks(folder: Path) -> list[list[Any]]:
    """For each process (epoch, number within the epoch, samples) of every step."""
    return [[json.loads(line) for line in path.read_text().splitlines()] for path in sorted(folder.glob("rank*"))]


def steps(folder: Path) -> list[Any]:
    """The same over all processes: the samples of a step together, in an order of their own."""
    together = []
    for parts in zip(*ranks(folder), strict=False):  # killed processes may have begun one step more than others
        (place,) = {(epoch, batch) for epoch, batch, _ in parts}
        together.append((*place, sorted(sample for *_, samples in parts for sample in samples)))
    return together


def checkpoint(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "last.ckpt", weights_only=True)


def test_two_processes_see_in_every_step_what_one_sees(runs: Path) -> None:
    one, two = steps(runs / "one"), steps(runs / "two")
    assert [place for *place, _ in one] == [[e, b] for e in range(EPOCHS) for b in range(STEPS_PER_EPOCH)]
    assert two == one
    shown = [digest for *_, samples in one for _, digest in samples]
    assert len(set(shown)) == len(shown) == 10 * STEPS, "every showing has an augmentation of its own"


def test_two_processes_share_every_domain_evenly(runs: Path) -> None:
    parts = ranks(runs / "two")
    assert [len(part) for part in parts] == [STEPS, STEPS]
    for *_, samples in (step for part in parts for step in part):
        assert Counter(domain for domain, _ in samples) == {0: 3, 1: 2}


@pytest.mark.parametrize(
    ("begun", "ended"),
    [("two_killed", "two_then_two"), ("one_stopped", "one_then_two"), ("two_killed", "two_then_one")],
)
def test_a_stopped_run_goes_on_with_the_batches_that_are_left(runs: Path, begun: str, ended: str) -> None:
    """Also with another number of processes, and with worker processes that read ahead."""
    stopped, saved = STOPPED_AND_SAVED[begun]
    assert checkpoint(runs / begun)["global_step"] == saved
    before, after, whole = steps(runs / begun), steps(runs / ended), steps(runs / "one")
    assert len(before) in (stopped, stopped + 1)
    assert before == whole[: len(before)]
    assert before[:saved] + after == whole


def test_a_killed_run_of_two_processes_ends_with_the_weights_of_the_uninterrupted_one(runs: Path) -> None:
    """To the last bit: sums of two numbers know no order. The workers of the one and not of the other play no part."""
    whole, rest, killed = (checkpoint(runs / name) for name in ("two", "two_then_two", "two_killed"))
    assert rest["global_step"] == whole["global_step"] == STEPS
    for key in ("state_dict", CURRENT):  # the average of the weights, and the weights
        for name, value in whole[key].items():
            assert torch.equal(rest[key][name], value), name
    assert any(not torch.equal(killed["state_dict"][name], value) for name, value in whole["state_dict"].items())
    torch.testing.assert_close(rest["optimizer_states"], whole["optimizer_states"], rtol=0, atol=0)
