"""A process of a training is gone: the one that has started it tells which, and how to go on."""

import signal
import socket
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from lightning_fabric.plugins.environments.lightning import find_free_network_port

from fcnseg.errors import InputError
from fcnseg.runs.heartbeat import Heartbeat
from tests.commands.processes import SETTINGS, in_a_process, stop_when

TRAIN = (
    "train", *SETTINGS, "trainer=ddp_cpu", "trainer.max_epochs=-1", "trainer.max_steps=1000000", "hydra.run.dir=run",
    "data.steps_per_epoch=1000", "callbacks.last.every_n_train_steps=1", "data.train.real.length=8",
    "data.train.synthetic.length=8", "data.val.length=2",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "told"),
    [(signal.SIGKILL, "was ended by SIGKILL"), (signal.SIGSTOP, "has given no sign of life for 5 seconds")],
)
def test_a_process_is_killed_or_hangs(tmp_path: Path, how: signal.Signals, told: str) -> None:
    process = in_a_process([*TRAIN, "callbacks.heartbeat.within=5"], tmp_path)
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    errors = stop_when(last.exists, process, how, child=True)
    assert process.returncode == 1, errors
    (line,) = [line for line in errors.splitlines() if line.startswith("fcnseg: ")]
    assert line.startswith("fcnseg: rank 1 on ")
    assert line.endswith(f"{told}; go on with the same settings and resume=run/checkpoints/last.ckpt")
    assert "Traceback" not in errors


def trains(process: psutil.Process) -> bool:
    """Whether it is one of the training's, and not what that asks git, for instance."""
    with suppress(psutil.Error):  # it may have ended
        return "trainer=ddp_cpu" in process.cmdline()
    return False


@pytest.mark.slow
def test_a_process_is_killed_before_all_are_connected(tmp_path: Path) -> None:
    process = in_a_process(TRAIN, tmp_path)
    deadline, children = time.monotonic() + 120, []
    while not children and time.monotonic() < deadline:
        time.sleep(0.01)
        children = [child for child in psutil.Process(process.pid).children() if trains(child)]
    children[0].kill()
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 1, errors
    again = "was ended by SIGKILL before the training; start all processes again, with the same settings"
    assert errors.strip() == f"fcnseg: rank 1 on {socket.gethostname()} {again}"


@pytest.mark.slow
@pytest.mark.parametrize("gone", [0, 1])
def test_one_of_two_that_a_person_has_started_is_killed_before_all_are_connected(tmp_path: Path, gone: int) -> None:
    """The other one is told by its silence, or by the end of the connection to it."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": find_free_network_port()}
    command = [*TRAIN, "trainer.devices=1", "trainer.num_nodes=2", "callbacks.heartbeat.within=5"]
    both = [in_a_process(command, tmp_path, NODE_RANK=rank, **place) for rank in (0, 1)]
    run = tmp_path / "run" / "config.yaml"  # is written when both prepare the training
    stop_when(run.exists, both[gone], signal.SIGKILL)
    errors = both[1 - gone].communicate(timeout=60)[1]
    assert both[1 - gone].returncode in (1, 2), errors
    assert "Traceback" not in errors
    (line,) = [line for line in errors.splitlines() if line.startswith("fcnseg: ")]
    if gone == 1:
        assert line.startswith(f"fcnseg: rank 1 on {socket.gethostname()} has given no sign of life for 5 seconds")
    assert line.endswith("start all processes again, with the same settings")


@pytest.mark.parametrize("within", [0, -1, "soon", None])
def test_what_is_no_time_is_refused(within: object) -> None:
    with pytest.raises(InputError, match=r"callbacks.heartbeat.within=.*: expected seconds above 0"):
        Heartbeat(within)  # type: ignore[arg-type]


def test_one_process_has_nobody_to_lose() -> None:
    heartbeat = Heartbeat()
    assert heartbeat.loss() is None
    heartbeat.stop()
