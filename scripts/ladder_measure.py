"""What each rung of the speed ladder reaches: confusion matrices, seconds from an image to its mask, size and cost."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ladder_rows import Rung, Settings, checkpoint, is_trained
from torch import Tensor

from fcnseg.data import CamVid, SegmentationData
from fcnseg.data.resizing import resize_image
from fcnseg.errors import InputError
from fcnseg.evaluation import evaluate
from fcnseg.evaluation.comparison import save_matrices
from fcnseg.evaluation.report import write_json
from fcnseg.inference.device import default_device
from fcnseg.inference.exported import Exported, load_exported
from fcnseg.inference.measured import machine_facts
from fcnseg.models import FCN, factorise, from_pretrained, optimise, summarise
from fcnseg.models.low_rank import Spectrum, responses, singular_values

CALLS = 3
"""Timed in each round, after one that is not: other libraries' threads may still be waiting for work."""


def measured_folder(output: Path, rung: Rung, seed: int) -> Path:
    return output / "measure" / rung.name / f"seed_{seed}"


class Measuring:
    """The measurements of a study; what is there already stays, but for times, which belong together.

    Args:
        output: the study's folder.
        root: CamVid's.
        device: that networks are computed on, where a rung has none of its own.
        rounds: in which all rungs are timed.
    """

    def __init__(self, output: Path, root: Path, device: str, rounds: int) -> None:
        self.output, self.root, self.device, self.rounds = output, root, default_device(device), rounds

    def run(self, rows: list[Rung], seeds: list[int]) -> None:
        for seed in seeds:
            for rung in rows:
                folder = measured_folder(self.output, rung, seed)
                if rung.missing() or not is_trained(self.output, rung.training, seed):
                    continue
                if not (folder / "facts.json").is_file():
                    print(f"measures    {rung.name}, seed {seed}", flush=True)
                    with problem_kept(folder / "problem.txt"):
                        self.score(rung, seed)
        self.time(rows, seeds[0])

    def score(self, rung: Rung, seed: int) -> None:
        """Write confusions.npz and, last, facts.json."""
        folder = measured_folder(self.output, rung, seed)
        network = self.network(rung, seed)
        found = evaluate(network, self.validation(network.spec.input_size).validation_loader())
        save_matrices(found.names, found.per_image, folder / "confusions.npz")
        write_json(folder / "facts.json", self.facts(rung, seed))

    def facts(self, rung: Rung, seed: int) -> dict[str, Any]:
        """Bytes of the file that is shipped, multiply-adds of an image, and what became of the weights."""
        model = from_pretrained(self.weights(rung, seed))
        size = model.spec.input_size
        assert size is not None  # the data's
        path = self.exported_file(rung, seed) if rung.exported else self.weights(rung, seed) / "model.safetensors"
        files = [path, path.with_suffix(".bin")] if rung.form == "openvino" else [path]
        return {
            "file_bytes": sum(file.stat().st_size for file in files),
            "multiply_adds": summarise(model, size).multiply_adds,
            "parameters": sum(values.numel() for values in model.parameters()),
            "weights": model.provenance.get("weights_source"),
        }

    def validation(self, size: tuple[int, int] | None) -> SegmentationData:
        data = SegmentationData({}, CamVid(self.root, "val"), size=size, batch_size=10)
        data.setup("validate")
        return data

    # Networks

    def weights(self, rung: Rung, seed: int) -> Path:
        """The folder of a model with the rung's weights, written when it is first asked for."""
        folder = self.output / "weights" / rung.weights / f"seed_{seed}"
        if not (folder / "config.json").is_file():
            model = from_pretrained(checkpoint(self.output, rung.training, seed))
            if rung.factors:
                model = factorise(model, self.settings.units, self.spectrum(rung, model))
            model.save_pretrained(folder)
        return folder

    @cached_property
    def settings(self) -> Settings:
        asked = json.loads((self.output / "study.json").read_text())["settings"]
        return Settings(asked["trunk"], asked["width"], tuple(asked["size"]))

    def spectrum(self, rung: Rung, model: FCN) -> Spectrum:
        if rung.factors == "weights":
            return singular_values(model)
        return responses(model.to(self.device), self.training_images(model.spec.input_size))

    def training_images(self, size: tuple[int, int] | None) -> Iterator[Tensor]:
        """(N, 3, h, w) uint8, without augmentation."""
        images = CamVid(self.root, "train")
        for start in range(0, len(images), 10):
            some = [resize_image(images[i][0], size) for i in range(start, min(start + 10, len(images)))]
            yield torch.from_numpy(np.stack(some).transpose(0, 3, 1, 2).copy())

    def network(self, rung: Rung, seed: int) -> FCN | Exported:
        """What computes the rung."""
        folder = self.weights(rung, seed)
        if rung.exported:
            return exported(rung, folder, self.exported_file(rung, seed), self.root)
        model = from_pretrained(folder).to(rung.device or self.device)
        if rung.form == "plain":
            return model
        return optimise(model, rung.precision, compile=rung.form == "compiled")

    def exported_file(self, rung: Rung, seed: int) -> Path:
        suffix = {"onnx": ".onnx", "openvino": ".xml"}[rung.form]
        return self.output / "exported" / rung.name / f"seed_{seed}" / f"model{suffix}"

    # Times

    def time(self, rows: list[Rung], seed: int) -> None:
        """Write times.json: seconds of each call by rung, on an image of the study's size in memory."""
        scored = [rung for rung in rows if (measured_folder(self.output, rung, seed) / "facts.json").is_file()]
        calls = {rung.name: Call(self.network(rung, seed), rung.form == "plain") for rung in scored}
        image = self.image()
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(self.rounds if calls else 0):
            for name, call in calls.items():
                call(image)
                for _ in range(CALLS):
                    seconds[name].append(call(image))
        machine = machine_facts(self.device)
        write_json(self.output / "measure" / "times.json", {"seconds": seconds, "calls": CALLS, "machine": machine})

    def image(self) -> np.ndarray:
        """(H, W, 3) uint8, of the size that networks take but for those of smaller images."""
        return resize_image(CamVid(self.root, "val")[0][0], self.settings.size)


class Call:
    """One image's way to its mask, as `Predictor` goes it, and how long it takes.

    Args:
        network: an `FCN`, or what was exported of one.
        plain: whether nothing is reused between images.
    """

    def __init__(self, network: FCN | Exported, plain: bool = False) -> None:
        self.network, self.size = network, network.spec.input_size
        if plain and isinstance(network, FCN):  # a network that is not told the size of all images reuses nothing
            network.prepare(replace(network.spec, input_size=None))

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> float:
        began = time.perf_counter()
        resized = np.ascontiguousarray(resize_image(image, self.size).transpose(2, 0, 1))
        batch = torch.from_numpy(resized)[None].to(self.network.device)
        self.network.segment_each(batch, [image.shape[:2]])[0].cpu()
        return time.perf_counter() - began


def exported(rung: Rung, weights: Path, file: Path, root: Path) -> Exported:
    """The rung's network as another runtime computes it, exported when it is first asked for.

    Raises:
        InputError: where the export fails; with its last line.
    """
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        calibration = ["precision=int8", "data=camvid", f"data.root={root}"] if rung.precision == "int8" else []
        # Whatever its scores are: they are what is asked for here.
        command = [f"checkpoint={weights}", f"format={rung.form}", f"output={file}", *calibration, "agreement=0"]
        done = subprocess.run([sys.executable, "-m", "fcnseg", "export", *command], capture_output=True, text=True)
        if done.returncode:
            raise InputError((done.stderr.strip() or "the export failed").splitlines()[-1].removeprefix("fcnseg: "))
    return load_exported(file)


@contextmanager
def problem_kept(path: Path) -> Iterator[None]:
    """Let the other rungs go on after one that cannot be measured, and keep the reason in a file."""
    path.unlink(missing_ok=True)
    try:
        yield
    except (InputError, RuntimeError) as error:
        problem = (str(error).strip() or type(error).__name__).splitlines()[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(problem)
        print(f"  {problem}", flush=True)
