"""One training at a time in a folder, and what is left of one that was killed does not keep the next one out."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fcnseg.errors import InputError
from fcnseg.runs.alone import RUNNING, alone_in

HOLD = """
import sys, time
from pathlib import Path
from fcnseg.runs.alone import alone_in
with alone_in(Path(sys.argv[1]), 0):
    print("holds", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def holder(folder: Path, seconds: float) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", HOLD, folder, str(seconds)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "holds\n"
    return process


def test_a_second_one_is_refused_with_the_firsts_process(tmp_path: Path) -> None:
    process = holder(tmp_path, 60)
    message = rf"^{tmp_path}: process {process.pid} on .* trains here; wait for it, or"
    try:
        with pytest.raises(InputError, match=message), alone_in(tmp_path, 0):
            pass
    finally:
        process.kill()
        process.wait()


def test_one_that_is_ending_is_waited_for(tmp_path: Path) -> None:
    process = holder(tmp_path, 1.5)
    with alone_in(tmp_path, 30):
        assert process.wait(timeout=10) == 0
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_one_leaves_keeps_nobody_out(tmp_path: Path) -> None:
    process = holder(tmp_path, 60)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert (tmp_path / RUNNING).exists()
    with alone_in(tmp_path, 0):
        assert f"process {os.getpid()} on" in (tmp_path / RUNNING).read_text()


def test_of_many_one_at_a_time_is_in(tmp_path: Path) -> None:
    """The file goes with each holder, while others wait for it."""
    inside, most = [0], [0]

    def enter() -> None:
        with alone_in(tmp_path / "new", 60):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.01)
            inside[0] -= 1

    threads = [threading.Thread(target=enter) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


def test_training_is_refused_where_another_trains(fcnseg, capsys, tmp_path: Path) -> None:
    process = holder(tmp_path / "run", 60)
    try:
        assert fcnseg("train", "experiment=demo", "hydra.run.dir=run") == 2
    finally:
        process.kill()
        process.wait()
    assert f"run: process {process.pid} on" in capsys.readouterr().err
    assert not (tmp_path / "run" / "config.yaml").exists()
