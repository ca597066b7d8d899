"""Checkpoints survive a job that is killed, and a disk that fills up, while they are written."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fcnseg.training.checkpoints import AtomicCheckpointIO

WEIGHTS = {"step": 2, "weights": torch.ones(50_000)}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}
    return path


def test_a_save_that_is_killed_half_way_leaves_the_old_checkpoint(old: Path) -> None:
    code = f"""
import os, pathlib, torch
from fcnseg.training.checkpoints import AtomicCheckpointIO

def half(self, data):
    with open(self, "wb") as file:
        file.write(data[: len(data) // 2])
    os._exit(9)

pathlib.Path.write_bytes = half
AtomicCheckpointIO().save_checkpoint({{"weights": torch.ones(50_000)}}, {str(old)!r})
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 9, "the save must have been interrupted"
    assert torch.load(old, weights_only=True) == {"step": 1}


@pytest.mark.skipif(os.name != "posix", reason="limits a file's size through POSIX resource limits")
def test_a_disk_that_fills_up_leaves_the_old_checkpoint_and_names_it(old: Path) -> None:
    """A limit on the size of files stands for the full disk: the write ends half-way with an OSError."""
    code = f"""
import resource, signal, torch
from fcnseg.training.checkpoints import AtomicCheckpointIO

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    AtomicCheckpointIO().save_checkpoint({{"weights": torch.ones(50_000)}}, {str(old)!r})
except OSError as error:
    print(error.errno, error.filename)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(errno.EFBIG), str(old)]
    assert torch.load(old, weights_only=True) == {"step": 1}
    assert list(old.parent.iterdir()) == [old]


def test_what_is_saved_is_what_was_given(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.ckpt"
    AtomicCheckpointIO().save_checkpoint(WEIGHTS, path)
    content = torch.load(path, weights_only=True)
    assert content["step"] == 2
    torch.testing.assert_close(content["weights"], WEIGHTS["weights"])
