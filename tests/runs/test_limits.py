"""What a training needs is looked at before its first step, and what it runs out of is told in one line."""

import os
import re
import resource
import shutil
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning import Trainer

from fcnseg.data.files.images import read_image
from fcnseg.errors import InputError, vanished
from fcnseg.memory import full_memory
from fcnseg.models import create_model
from fcnseg.runs.limits import averages, check_memory, checkpoint_bytes, state_share
from fcnseg.training import SegmentationModule
from fcnseg.training.averaging import WeightAverage
from fcnseg.training.checkpoints import AtomicCheckpointIO
from tests.commands.processes import SETTINGS, Forked, command, environment


@pytest.fixture
def train(fcnseg, camvid):
    """Train a small network on CamVid's layout; returns the exit code."""

    def run(*more: str) -> int:
        data = ("data=camvid", f"data.root={camvid}", "trainer.log_every_n_steps=1", "hydra.run.dir=run")
        return fcnseg("train", *SETTINGS, *data, *more)

    return run


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err
    return shown.err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("optimizer", "share"),
    [
        (torch.optim.AdamW, 2),
        (lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9), 1),
        (lambda groups: torch.optim.SGD(groups, lr=0.1), 0),
        (torch.optim.LBFGS, 0),  # wants a closure
    ],
)
def test_an_optimisers_state_is_known_before_there_is_one(optimizer, share) -> None:
    assert state_share(optimizer) == share


@pytest.mark.parametrize("average", [0, 1])
def test_a_checkpoint_is_as_large_as_was_told(train, average: int) -> None:
    decay = "0.9" if average else "null"
    assert train("trainer.max_steps=1", "optimizer=adamw", f"callbacks.ema.decay={decay}") == 0
    module = SegmentationModule(create_model("fcn32s_vgg16", num_classes=11, width=0.05))
    size = Path("run/checkpoints/last.ckpt").stat().st_size
    share = state_share(torch.optim.AdamW) + averages(
        Trainer(logger=False, callbacks=[WeightAverage(0.9 if average else None)])
    )
    assert checkpoint_bytes(module, share) == pytest.approx(size, rel=0.1)


@pytest.fixture
def small_disk(disk) -> Path:
    """Of two megabytes."""
    return disk(2)


def test_a_disk_without_room_for_the_checkpoints_is_refused_with_both_numbers(train, small_disk, capsys) -> None:
    assert train(f"hydra.run.dir={small_disk}/run", "trainer.max_steps=1") == 2
    line = last_line(capsys)
    assert re.match(rf"fcnseg: {small_disk}/run: has 2\.\d+ MB free, the run will write ", line), line
    assert re.search(r"\(209\d{4} and ", line), line
    assert "3 checkpoints of " in line
    assert not [path for path in small_disk.rglob("*") if path.is_file()], "nothing is begun"


def test_weights_that_cannot_fit_are_refused(tmp_path: Path) -> None:
    """A layer of 10^13 weights, of which none is there."""
    with torch.device("meta"):
        layer = torch.nn.Linear(10**7, 10**6, bias=False)
    trainer = Trainer(accelerator="cpu", devices=1, logger=False, default_root_dir=tmp_path)
    with pytest.raises(
        InputError, match=r"gradients and the optimiser's state need 1.2e\+05 GB of memory, .* are free"
    ):
        check_memory(trainer, layer, 2)
    layer.requires_grad_(False)
    check_memory(trainer, layer, 2)


def test_a_label_that_is_no_class_is_named_before_the_first_step(train, camvid, capsys) -> None:
    label = sorted((camvid / "trainannot").iterdir())[-1]
    Image.fromarray(np.full((48, 64), 42, np.uint8)).save(label)
    assert train("trainer.max_steps=1") == 2
    shown = capsys.readouterr()
    assert f"{label.name}: label value 42 is outside" in shown.err.strip().splitlines()[-1]
    assert "trainer     1 x cpu" not in shown.out
    assert not Path("run/metrics.csv").exists()
    assert train("trainer.max_steps=1", "data.on_error=skip") == 0


ENDLESS = ("trainer.max_epochs=2000", "trainer.limit_val_batches=0")


def once_it_trains(action) -> threading.Thread:
    """Do something when the first epoch has ended."""

    def watch() -> None:
        file, deadline = Path("run/checkpoints/last.ckpt").absolute(), time.monotonic() + 100
        while not file.is_file() and time.monotonic() < deadline:
            time.sleep(0.01)
        action()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_a_run_folder_that_goes_away_ends_the_training_in_one_line(train, capsys) -> None:
    watched = once_it_trains(lambda: os.rename("run", "elsewhere"))
    assert train(*ENDLESS) == 2
    watched.join()
    line = last_line(capsys)
    assert "run/" in line
    assert "no folder" in line or "the folder is gone" in line
    assert not Path("run/checkpoints").exists(), "it is not made again"


def test_data_that_goes_away_ends_the_training_in_one_line(train, camvid, capsys) -> None:
    watched = once_it_trains(lambda: (camvid / "train").rename(camvid / "elsewhere"))
    assert train(*ENDLESS) == 2
    watched.join()
    line = last_line(capsys)
    assert line.startswith(f"fcnseg: {camvid}/train/real-0-")
    assert line.endswith(f".png: no such file, and no folder {camvid}/train")


def test_checkpoints_are_not_written_where_their_folder_was(tmp_path: Path) -> None:
    keeper, path = AtomicCheckpointIO(), tmp_path / "run" / "last.ckpt"
    keeper.save_checkpoint({"step": 1}, path)
    shutil.rmtree(path.parent)
    with pytest.raises(InputError, match=r"last.ckpt: not written, since the folder is gone"):
        keeper.save_checkpoint({"step": 2}, path)
    assert not path.parent.exists()


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs Linux's /proc, whose file mem fails to be read")
def test_a_file_system_that_fails_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to("/proc/self/mem")
    with pytest.raises(InputError, match=r"a.png: cannot be read as an image \(.*Input/output error"):
        read_image(tmp_path / "a.png")
    with pytest.raises(OSError, match="Input/output") as raised, open("/proc/self/mem", "rb") as file:
        file.read(1)
    assert vanished(raised.value, tmp_path) == (
        f"{tmp_path}: Input/output error; the disk or the file system that it is on has failed"
    )
    with pytest.raises(FileNotFoundError) as missing:
        (tmp_path / "b.png").read_bytes()
    assert vanished(missing.value) is None, "the folder is there"


def test_full_memory_is_known_by_whoever_says_so() -> None:
    for taking in (
        lambda: torch.empty(10**17),
        lambda: np.empty(10**18),
        lambda: cv2.resize(np.zeros((2, 2), np.float64), (2**30, 2**30)),
    ):
        with pytest.raises((RuntimeError, MemoryError, cv2.error)) as raised:
            taking()
        assert full_memory(raised.value) == "memory"
    assert full_memory(torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")) == "the GPU's memory"
    assert full_memory(RuntimeError("CUDA error: out of memory")) == "the GPU's memory"
    assert full_memory(RuntimeError("shapes do not fit")) is None


def limited(arguments: list[str]) -> None:
    """The command with 700 MB beside what it has."""
    lines = Path("/proc/self/status").read_text().splitlines()
    used = next(int(line.split()[1]) for line in lines if line.startswith("VmSize")) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (used + 700_000_000,) * 2)
    command(arguments)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="takes the memory in use from Linux's /proc")
def test_a_training_without_enough_memory_says_what_would_help(camvid, tmp_path) -> None:
    """Scores of a batch of 8 images of 2,000 x 2,000 pixels in 11 classes alone are 1.4 GB."""
    wanted = [each for each in SETTINGS if not each.startswith(("data.size", "data.batch_size"))]
    wanted += ["data=camvid", f"data.root={camvid}", "data.size=[2000,2000]", "data.batch_size=8"]
    wanted += ["trainer.num_sanity_val_steps=0", "trainer.max_steps=1", "hydra.run.dir=run"]
    process = Forked(limited, ["train", *wanted], tmp_path, environment({}))
    errors = process.communicate(timeout=300)[1]
    assert process.returncode == 2, errors[-3000:]
    assert "Traceback" not in errors
    line = errors.strip().splitlines()[-1]
    assert line.startswith("fcnseg: memory is full; try data.device_batch_size=1, a smaller data.size or model.width")
