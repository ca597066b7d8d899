"""Trains on BGC batches of two domains and writes down what each process sees of them; `test_elastic.py` runs it.

    python recorded.py PROCESSES '[{"name": "whole", "workers": 0}, ...]'

One training after the other, each in a folder of its own below the working directory. `stop_after` a step of the
optimiser kills every process of the process group, and with it the program; a training on one process, which a test
may run itself, raises `Stopped` instead.
"""

import hashlib
import json
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DDPStrategy

import fcnseg
from fcnseg.data import CityScenes, SegmentationData
from fcnseg.data.transforms import street_pipeline
from fcnseg.training import SegmentationModule
from fcnseg.training.averaging import WeightAverage
from fcnseg.training.checkpoints import LastCheckpoint
from fcnseg.training.strategies import DataParallel

SIZE = (32, 48)
EPOCHS, STEPS_PER_EPOCH, STEPS_PER_CHECKPOINT = 2, 6, 4
DOMAINS = {"real": 36, "synthetic": 7}
RATIO = {"real": 6, "synthetic": 4}


class Stopped(Exception):  # noqa: N818 - what was asked for
    """A training on one process was interrupted."""


class Record(pl.Callback):
    """Adds a line to `rankN` before each batch: its epoch, its place in it, domain and digest of each sample."""

    def __init__(self, folder: Path, stop_after: int | None = None) -> None:
        self.folder, self.stop_after = folder, stop_after

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        samples = [
            [int(domain), hashlib.md5(image.numpy().tobytes() + mask.numpy().tobytes()).hexdigest()]
            for domain, image, mask in zip(batch["domain"], batch["image"], batch["mask"], strict=True)
        ]
        with (self.folder / f"rank{trainer.global_rank}").open("a") as file:
            file.write(json.dumps([trainer.current_epoch, batch_idx, samples]) + "\n")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step != self.stop_after:
            return
        if trainer.world_size == 1:
            raise Stopped
        if trainer.is_global_zero:
            os.killpg(0, signal.SIGKILL)


def train(
    root: Path, processes: int, name: str, workers: int = 0, resume: str | None = None, stop_after: int | None = None,
    epochs: int = EPOCHS, at_once: int | None = None, strategy: dict[str, Any] | None = None,
) -> None:  # fmt: skip
    """In `root/name`, perhaps from where `root/resume` stopped; Lightning's own strategy, or ours with settings.

    With dropout, batch normalisation and momentum, whose states a resumed run needs, and an average of the weights.
    """
    folder = root / name
    folder.mkdir(exist_ok=True)
    scenes = {look: CityScenes(length, seed=1, look=look, size=SIZE) for look, length in DOMAINS.items()}
    data = SegmentationData(
        scenes, scenes["real"], size=SIZE, ratio=RATIO, augment=street_pipeline(SIZE), batch_size=10,
        num_workers=workers, seed=7, device_batch_size=at_once,
    )  # fmt: skip
    pl.seed_everything(5, verbose=False)
    model = fcnseg.create_model("fcn32s_vgg16_bn", num_classes=11, width=0.05, dropout=0.5)
    keep = LastCheckpoint(
        dirpath=folder, filename="last", every_n_train_steps=STEPS_PER_CHECKPOINT, enable_version_counter=False
    )
    kind = DDPStrategy if strategy is None else DataParallel
    together = kind(process_group_backend="gloo", **(strategy or {}))
    trainer = pl.Trainer(
        accelerator="cpu", devices=processes, max_epochs=epochs, limit_val_batches=1, num_sanity_val_steps=0,
        strategy=together if processes > 1 else "auto",
        callbacks=[WeightAverage(0.9), keep, Record(folder, stop_after)], logger=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip
    module = SegmentationModule(model, optimizer=partial(torch.optim.SGD, lr=0.05, momentum=0.9))
    trainer.fit(module, data, ckpt_path=root / resume / "last.ckpt" if resume else None, weights_only=True)


if __name__ == "__main__":
    for training in json.loads(sys.argv[2]):
        train(Path(), int(sys.argv[1]), **training)
    torch.distributed.destroy_process_group()
