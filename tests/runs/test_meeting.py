"""Where processes meet: who is the first, and what they hand to one another."""

import re
import socket
import threading
import time

import pytest
from torch.distributed import HashStore

from fcnseg.errors import InputError
from fcnseg.runs import meeting, signs
from fcnseg.runs.meeting import First, Other, Started, open_store, spread, started

TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4"}
SRUN = {"SLURM_NTASKS": "8", "SLURM_PROCID": "5", "SLURM_LOCALID": "0", "SLURM_STEP_ID": "0", "SLURM_JOB_NAME": "x"}
NAMES = {
    *TORCHRUN,
    *SRUN,
    "NODE_RANK",
    "GROUP_RANK",
    "LOCAL_WORLD_SIZE",
    "GROUP_WORLD_SIZE",
    "SLURM_NNODES",
    "MASTER_ADDR",
    "MASTER_PORT",
}


@pytest.fixture
def environment(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        (TORCHRUN, Started("torchrun", 3, 4)),
        (SRUN, Started("srun", 5, 8)),
        (SRUN | {"SLURM_NTASKS": "1"}, None),
        ({name: value for name, value in SRUN.items() if name != "SLURM_STEP_ID"}, None),
        (SRUN | {"SLURM_JOB_NAME": "interactive"}, None),
        ({"LOCAL_RANK": "1"}, Started("hand", 1, None)),
        ({"NODE_RANK": "2"}, Started("hand", 2, None)),
        ({"NODE_RANK": "0"}, Started("hand", 0, None)),
        ({"NODE_RANK": "2", "LOCAL_RANK": "0"}, Started("hand", 2, None)),
    ],
)
def test_who_has_started_it(environment, variables, expected):
    for name, value in variables.items():
        environment.setenv(name, value)
    assert started() == expected


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        (TORCHRUN | {"GROUP_WORLD_SIZE": "2"}, (2, 2)),
        (TORCHRUN | {"GROUP_WORLD_SIZE": "1"}, (4, 1)),
        (SRUN | {"SLURM_NNODES": "4"}, (2, 4)),
        ({"NODE_RANK": "1"}, (-1, None)),
    ],
)
def test_how_processes_are_spread_over_machines(environment, variables, expected):
    for name, value in variables.items():
        environment.setenv(name, value)
    assert spread() == expected


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "nothing tells of other processes; expected torchrun, srun or NODE_RANK"),
        (SRUN | {"SLURM_NNODES": "3"}, "srun has started 8 processes on 3 machines; expected as many on each"),
    ],
)
def test_processes_that_are_not_spread_evenly_are_refused(environment, variables, message):
    for name, value in variables.items():
        environment.setenv(name, value)
    with pytest.raises(InputError, match=message):
        spread()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"MASTER_ADDR": "127.0.0.1"}, "MASTER_PORT: a value is missing"),
        ({"MASTER_PORT": "29500"}, "MASTER_ADDR: a value is missing"),
        ({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "x"}, "MASTER_PORT=x: expected a number"),
        ({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}, "127.0.0.1:1: no first process answers within"),
    ],
)
def test_where_they_meet_is_to_be_said(environment, variables, message):
    for name, value in variables.items():
        environment.setenv(name, value)
    environment.setattr(meeting, "PATIENCE", 0.1)
    with pytest.raises(InputError, match=message):
        open_store(Started("hand", 1, None))


@pytest.fixture
def sides(monkeypatch) -> tuple[First, Other]:
    monkeypatch.setattr(meeting, "CHUNK", 1000)
    store = HashStore()
    first, other = First(store, others=1), Other(store)
    first.tell("a training")
    assert other.hear() == "a training"
    return first, other


def beside(work) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


@pytest.mark.parametrize("there", [None, b"", b"x" * 3500, b"something else"])
def test_a_file_reaches_the_disk_that_lacks_it(sides, tmp_path, there):
    first, other = sides
    mine, theirs = tmp_path / "mine.ckpt", tmp_path / "folder" / "theirs.ckpt"
    mine.write_bytes(b"x" * 3500)
    if there is not None:
        theirs.parent.mkdir()
        theirs.write_bytes(there)
    taking = beside(lambda: other.share("file 0", theirs))
    first.share("file 0", mine)
    taking.join()
    assert theirs.read_bytes() == mine.read_bytes()
    assert [path.name for path in theirs.parent.iterdir()] == ["theirs.ckpt"]


def test_all_are_ready(sides):
    first, other = sides
    agreed: list[str] = []
    waiting = beside(lambda: agreed.append(f"other {other.agree(None)}"))
    assert not agreed, "it waits for the first"
    first.agree(None)
    waiting.join()
    assert agreed == ["other None"]


def test_the_first_hears_what_is_wrong_elsewhere(sides):
    first, other = sides
    other.agree(InputError("camvid: no such folder"))
    with pytest.raises(InputError, match=r"^\S+: camvid: no such folder$"):
        first.agree(None)


def test_the_others_do_not_wait_for_a_first_that_cannot_begin(sides):
    first, other = sides
    first.agree(InputError("camvid: no such folder"))
    with pytest.raises(InputError, match="another process could not begin"):
        other.agree(None)


@pytest.mark.parametrize("error", [None, InputError("wrong"), RuntimeError("worse")])
def test_the_end(sides, error):
    first, other = sides
    leaving = beside(lambda: first.end(error))
    if error is None:
        assert other.hear() is None
    else:
        with pytest.raises(SystemExit, match="2"):
            other.hear()
    leaving.join()


def test_one_that_is_gone_before_the_training_is_named(monkeypatch):
    """Two others, of which one has left; the one that is there is told to stop."""
    monkeypatch.setattr(meeting, "INTERVAL", 0.1)
    monkeypatch.setattr(signs, "INTERVAL", 0.1)
    store = HashStore()
    first, here, gone = First(store, others=2, within=0.5), Other(store, 1), Other(store, 2)
    first.tell("a training")
    for other in (here, gone):
        other.hear()
    time.sleep(0.3)
    gone.leave()
    stopped: list[BaseException] = []

    def ready() -> None:
        try:
            here.agree(None)
        except InputError as error:
            stopped.append(error)

    waiting = beside(ready)
    name = re.escape(f"rank 2 on {socket.gethostname()}")
    with pytest.raises(
        InputError, match=f"^{name} has given no sign of life for 0.5 seconds before the training; start"
    ):
        first.agree(None)
    waiting.join()
    assert str(stopped[0]) == "another process could not begin"


def test_others_do_not_wait_for_a_first_that_is_gone(monkeypatch):
    monkeypatch.setattr(meeting, "INTERVAL", 0.1)
    monkeypatch.setattr(signs, "INTERVAL", 0.1)
    store = HashStore()
    first, other = First(store, others=1), Other(store, within=0.5)
    time.sleep(0.3)
    first.leave()
    with pytest.raises(InputError, match=r"^rank 0 on .* has given no sign of life"):
        other.hear()
