"""A process of a training is gone: the one that has started it tells which, and how to go on."""

import signal
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("within", [0, -1, "soon", None])
def test_what_is_no_time_is_refused(within: object) -> None:
    with pytest.raises(InputError, match=r"callbacks.heartbeat.within=.*: expected seconds above 0"):
        Heartbeat(within)  # type: ignore[arg-type]


def test_one_process_has_nobody_to_lose() -> None:
    heartbeat = Heartbeat()
    assert heartbeat.loss() is None
    heartbeat.stop()
