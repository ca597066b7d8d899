"""Make the small model that comes with the package: train it on the embedded scenes, and write it in half precision.

About half an hour on two CPU cores. Example: python scripts/make_demo_weights.py
From a training that is there already: python scripts/make_demo_weights.py --checkpoint runs/.../last.ckpt
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import torch

from fcnseg import Predictor
from fcnseg.data import CityScenes
from fcnseg.evaluation.metrics import scores, to_dict
from fcnseg.models import from_pretrained
from fcnseg.models.sources import DEMO

TRAINING_DATA = {
    "train": {
        "real": "2000 embedded scenes, seed 0, in the real look",
        "synthetic": "1400 embedded scenes, seed 0, in the synthetic look",
    },
    "validation": "100 embedded scenes, seed 1, in the real look",
}
LARGEST = 5_000_000  # bytes of the weights' file, which everybody downloads with the package


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, help="a finished training; without it the model is trained now")
    parser.add_argument("--output", type=Path, default=DEMO, help="folder of the model (%(default)s)")
    arguments = parser.parse_args()
    checkpoint = arguments.checkpoint or train()
    model = from_pretrained(checkpoint)
    model.save_pretrained(arguments.output, dtype="float16", training_data=TRAINING_DATA, metrics={}, license="mit")
    metrics = score(arguments.output)  # of the weights as they are stored
    model.save_pretrained(
        arguments.output, dtype="float16", training_data=TRAINING_DATA, metrics=metrics, license="mit"
    )
    size = (arguments.output / "model.safetensors").stat().st_size
    if size > LARGEST:
        sys.exit(f"{arguments.output}: {size:,} bytes; at most {LARGEST:,} fit into the package")
    print(json.dumps({"mean_iou": metrics["mean_iou"], "bytes": size, "folder": str(arguments.output)}))


def train() -> Path:
    folder = Path("runs/demo_weights") / time.strftime("%Y-%m-%d_%H-%M-%S")
    command = [sys.executable, "-m", "fcnseg", "train", "experiment=demo_weights", f"hydra.run.dir={folder}"]
    subprocess.run(command, check=True)
    return folder / "checkpoints" / "last.ckpt"


def score(folder: Path) -> dict:
    """Scores on the validation scenes."""
    predictor, scenes = Predictor.from_pretrained(folder), CityScenes(100, seed=1, look="real", size=(180, 240))
    classes = scenes.label_space.num_classes
    confusion = torch.zeros(classes, classes, dtype=torch.int64)
    for image, mask, _ in (scenes[i] for i in range(len(scenes))):
        label, found = torch.from_numpy(mask).long(), torch.from_numpy(predictor(image).mask).long()
        kept = label < classes
        confusion += torch.bincount(label[kept] * classes + found[kept], minlength=classes**2).view(classes, classes)
    return to_dict(scores(confusion.numpy()), scenes.label_space) | {"images": len(scenes)}


if __name__ == "__main__":
    main()
