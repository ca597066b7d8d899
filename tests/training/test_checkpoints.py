"""Checkpoints survive a job that is killed, and a disk that fills up, while they are written."""

import errno
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch

from fcnseg.errors import InputError
from fcnseg.runs.folder import checkpoint_to_resume
from fcnseg.training.checkpoints import AtomicCheckpointIO, BesideTraining

FORK = multiprocessing.get_context("fork")
WEIGHTS = {"step": 2, "weights": torch.ones(50_000)}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}
    return path


def test_a_save_that_is_killed_half_way_leaves_the_old_checkpoint(old: Path) -> None:
    def half(checkpoint: Any, file: BinaryIO) -> None:
        file.write(bytes(1000))
        file.flush()
        os._exit(9)

    def save() -> None:
        torch.save = half
        AtomicCheckpointIO().save_checkpoint(WEIGHTS, old)

    process = FORK.Process(target=save)
    process.start()
    process.join()
    assert process.exitcode == 9, "the save must have been interrupted"
    assert torch.load(old, weights_only=True) == {"step": 1}


@pytest.mark.skipif(os.name != "posix", reason="limits a file's size through POSIX resource limits")
def test_a_disk_that_fills_up_leaves_the_old_checkpoint_and_names_it(old: Path) -> None:
    """A limit on the size of files stands for the full disk: the write ends half-way with an OSError."""

    def save(told: Connection) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            AtomicCheckpointIO().save_checkpoint(WEIGHTS, old)
        except OSError as error:
            told.send((error.errno, error.filename))

    ours, theirs = FORK.Pipe(duplex=False)
    process = FORK.Process(target=save, args=(theirs,))
    process.start()
    process.join()
    assert ours.poll()
    assert ours.recv() == (errno.EFBIG, str(old))
    assert torch.load(old, weights_only=True) == {"step": 1}
    assert list(old.parent.iterdir()) == [old]


def test_what_is_saved_is_what_was_given(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.ckpt"
    AtomicCheckpointIO().save_checkpoint(WEIGHTS, path)
    content = torch.load(path, weights_only=True)
    assert content["step"] == 2
    torch.testing.assert_close(content["weights"], WEIGHTS["weights"])


def test_a_damaged_last_checkpoint_gives_way_to_the_one_before(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    last = tmp_path / "checkpoints" / "last.ckpt"
    for step in (1, 2, 3):
        AtomicCheckpointIO().save_checkpoint({"step": step}, last)
    assert checkpoint_to_resume(tmp_path) == last
    last.write_bytes(last.read_bytes()[:-40])
    chosen = checkpoint_to_resume(tmp_path)
    assert chosen is not None
    assert torch.load(chosen, weights_only=True) == {"step": 2}
    assert "last.ckpt; goes on from previous.ckpt" in capsys.readouterr().out
    AtomicCheckpointIO().save_checkpoint({"step": 4}, last)
    assert torch.load(chosen, weights_only=True) == {"step": 2}, "a damaged one takes no sound one's place"
    assert checkpoint_to_resume(tmp_path) == last


def test_nothing_to_resume(tmp_path: Path) -> None:
    assert checkpoint_to_resume(tmp_path) is None


def test_what_is_written_beside_training_is_what_was_there(tmp_path: Path) -> None:
    """The weights are changed while the file is written."""
    writer, weights = BesideTraining(), torch.zeros(3_000_000)
    writer.save_checkpoint({"weights": weights}, tmp_path / "last.ckpt")
    weights += 1
    writer.save_checkpoint({"weights": weights}, tmp_path / "last.ckpt")
    weights += 1
    writer.teardown()
    for name, value in {"previous.ckpt": 0, "last.ckpt": 1}.items():
        assert torch.load(tmp_path / name, weights_only=True)["weights"].unique().tolist() == [value]


def test_what_goes_wrong_beside_training_is_raised_by_the_next_one_or_at_the_end(tmp_path: Path) -> None:
    writer, no_folder = BesideTraining(), tmp_path / "file" / "last.ckpt"
    no_folder.parent.write_text("")
    for _ in range(2):
        writer.save_checkpoint({}, no_folder)
        with pytest.raises(OSError, match="file"):
            writer.teardown()
    writer.save_checkpoint({}, no_folder)
    with pytest.raises(OSError, match="file"):
        writer.save_checkpoint({}, tmp_path / "last.ckpt")
    writer.teardown()
    with pytest.raises(InputError, match="is not finite"):
        writer.save_checkpoint({"state_dict": {"weight": torch.tensor(float("nan"))}}, tmp_path / "last.ckpt")


def test_a_checkpoint_is_not_in_memory_a_second_time(tmp_path: Path) -> None:
    code = f"""
import resource, torch
from fcnseg.training.checkpoints import AtomicCheckpointIO

weights = torch.ones(100_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
AtomicCheckpointIO().save_checkpoint({{"weights": weights}}, {str(tmp_path / "a.ckpt")!r})
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100e6, "of 400 MB"
