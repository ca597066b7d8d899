"""Train the same network on 1, 2, 3 and 5 processes, and print how far apart the weights end.

Batches of 10 images of which a hundredth to all of the pixels are labelled, 50 steps of SGD with momentum, processes
that talk over gloo on this machine. Distances are Euclidean over all parameters and running statistics: relative to
the weights of one process, and to how far these have moved from where they began. In float32 the roundings of sums
in another order grow from step to step, as those of any training do, the faster the higher the rate; float64 shows
that nothing else differs. "At most 2 images at once" is in micro-batches (`device_batch_size`), and compared with the
batch in one piece on one process.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DDPStrategy

import fcnseg
from fcnseg.data import CityScenes, SegmentationData, Targets, WithoutLabels
from fcnseg.labels import IGNORE_INDEX
from fcnseg.training import SegmentationModule
from fcnseg.training.adaptation import ClassMix, MinimumEntropy
from fcnseg.training.losses import CrossEntropy
from fcnseg.training.micro_batches import micro_batches

EXAMPLE = "example: python scripts/same_training.py --processes 1 2 --settings plain dropout"
SIZE = (48, 64)
PRECISIONS = ("32-true", "64-true")
DOMAINS = ("real", "synthetic")
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {"model": "fcn8s_vgg16", "dropout": 0.0},
    "dropout": {"model": "fcn8s_vgg16", "dropout": 0.5},
    "batch normalisation and dropout": {"model": "fcn8s_vgg16_bn", "dropout": 0.5},
    "class weights": {"model": "fcn8s_vgg16", "dropout": 0.5, "loss": {"class_weights": "median_frequency"}},
    "domain weights": {
        "model": "fcn8s_vgg16",
        "dropout": 0.5,
        "loss": {"domain_weights": {"real": 0.6, "synthetic": 0.4}},
    },
    "accumulated gradients": {"model": "fcn8s_vgg16", "dropout": 0.5, "accumulate": 3},
    "activations computed twice": {
        "model": "fcn8s_vgg16_bn",
        "dropout": 0.5,
        "twice": True,
        "against": "batch normalisation and dropout",
    },
    "at most 2 images at once": {"model": "fcn8s_vgg16", "dropout": 0.5, "at_once": 2, "against": "dropout"},
    "domain weights, at most 2 at once": {
        "model": "fcn8s_vgg16",
        "dropout": 0.5,
        "at_once": 2,
        "loss": {"domain_weights": {"real": 0.6, "synthetic": 0.4}},
        "against": "domain weights",
    },
    "summed loss, at most 2 at once": {
        "model": "fcn8s_vgg16",
        "dropout": 0.5,
        "at_once": 2,
        "loss": {"reduction": "sum"},
        "lr": 2e-8,
        "against": "summed loss",
    },
    "summed loss": {"model": "fcn8s_vgg16", "dropout": 0.5, "loss": {"reduction": "sum"}, "lr": 2e-8},
    "images mixed by class": {"model": "fcn8s_vgg16_bn", "dropout": 0.5, "adaptation": ClassMix, "targets": True},
    "least entropy": {"model": "fcn8s_vgg16_bn", "dropout": 0.5, "adaptation": MinimumEntropy, "unlabelled": True},
}


class PartlyLabelled:
    """Scenes whose masks are ignored beyond a part that differs from one to the next by a factor of up to a hundred."""

    def __init__(self, scenes: CityScenes) -> None:
        self.scenes, self.label_space = scenes, scenes.label_space

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, str]:
        image, mask, name = self.scenes[index]
        labelled = max(1, round(len(mask) * 10 ** -np.random.default_rng(index).uniform(0, 2)))
        mask = mask.copy()
        mask[labelled:] = IGNORE_INDEX
        return image, mask, name


def train(processes: int, setting: str, precision: str, steps: int, lr: float | None, output: Path) -> None:
    """One training, as each of its processes runs it; the first one writes weights, those it began with, and losses."""
    options = SETTINGS[setting]
    pl.seed_everything(5, verbose=False)
    domains: dict[str, Any] = {look: PartlyLabelled(CityScenes(40, seed=1, look=look, size=SIZE)) for look in DOMAINS}
    real = domains["real"]
    if options.get("unlabelled"):
        domains["real"] = WithoutLabels(real)
    data = SegmentationData(
        domains, real, size=SIZE, ratio={"real": 6, "synthetic": 4}, batch_size=10, num_workers=0,
        device_batch_size=options.get("at_once"),
        targets=Targets(WithoutLabels(real), ["synthetic"]) if options.get("targets") else None,
    )  # fmt: skip
    model = fcnseg.create_model(options["model"], num_classes=11, width=0.1, dropout=options["dropout"])
    model.backbone.checkpoint_activations = options.get("twice", False)
    loss = CrossEntropy(class_pixels=data.class_pixels, domains=DOMAINS, **options.get("loss", {}))
    optimizer = partial(torch.optim.SGD, lr=lr or options.get("lr", 2e-4), momentum=0.9, weight_decay=5e-4)
    adaptation = options["adaptation"]() if "adaptation" in options else None
    module = SegmentationModule(model, loss, optimizer, adaptation=adaptation)
    began = {name: value.clone() for name, value in model.state_dict().items()}
    losses = Losses()
    trainer = pl.Trainer(
        accelerator="cpu", devices=processes, max_steps=steps, limit_val_batches=0, num_sanity_val_steps=0,
        strategy=DDPStrategy(process_group_backend="gloo") if processes > 1 else "auto", callbacks=[losses],
        accumulate_grad_batches=options.get("accumulate", 1), precision=precision, use_distributed_sampler=False,
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, data)
    if trainer.is_global_zero:
        torch.save({"began": began, "ended": model.state_dict(), "losses": losses.seen}, output)


class Losses(pl.Callback):
    """Notes what is logged as the loss of every batch, which is after the last of its micro-batches."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % micro_batches(trainer) == 0:
            self.seen.append(float(trainer.callback_metrics["train/loss"]))


def run(processes: int, trainings: list[tuple[str, str, int, float | None]], folder: Path) -> list[dict[str, Any]]:
    """Train one after the other in a process of its own, which starts the others; returns what each one wrote.

    Args:
        processes: how many train together.
        trainings: setting, precision, steps and learning rate, None for the setting's own.
        folder: for the files.
    """
    outputs = [folder / f"{number} of {processes}.pt" for number in range(len(trainings))]
    work = json.dumps(
        [[processes, *training, str(output)] for training, output in zip(trainings, outputs, strict=True)]
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PL_")} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, __file__, "--work", work], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{trainings}, {processes} processes: {done.stderr[-3000:]}")
    return [torch.load(output, weights_only=True) for output in outputs]


def compare(one: dict[str, Any], several: dict[str, Any]) -> tuple[float, float, float]:
    """Distance of the weights relative to the weights and to their way, and the largest relative one of the losses."""
    began, ended, others = (
        torch.cat([value.double().flatten() for value in weights.values()])
        for weights in (one["began"], one["ended"], several["ended"])
    )
    apart = float((others - ended).norm())
    losses = np.array(one["losses"]), np.array(several["losses"])
    largest = float(np.abs(losses[0] - losses[1]).max() / np.abs(losses[0]).max())
    return apart / float(ended.norm()), apart / float((ended - began).norm()), largest


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 3, 5], help="default: 1 2 3 5")
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS), help="default: all")
    parser.add_argument("--steps", type=int, default=50, help="steps of the optimiser (default: 50)")
    parser.add_argument("--lr", type=float, help="learning rate (2e-4; 2e-8 for the summed loss)")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        for *work, output in json.loads(arguments.work):
            train(*work, Path(output))
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        return
    print("| training | processes | float32, weights | their way | losses | float64, weights | their way |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for setting in arguments.settings:
            work = [(setting, precision, arguments.steps, arguments.lr) for precision in PRECISIONS]
            whole = SETTINGS[setting].get("against", setting)
            one = run(1, [(whole, *rest) for _, *rest in work], Path(folder))
            for processes in (n for n in arguments.processes if n > 1 or whole != setting):
                found = [compare(*pair) for pair in zip(one, run(processes, work, Path(folder)), strict=True)]
                cells = [f"{value:.0e}" for value in (*found[0], *found[1][:2])]
                print(f"| {setting} | {processes} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
