"""The demo: train on the embedded scenes in BGC batches, evaluate, predict, and say where the pictures are.

Runs the same `fcnseg` commands that a user would type, and prints them. `python scripts/demo.py KEY=VALUE ...`
passes overrides on to `fcnseg train`.
"""

import subprocess
import sys
import time
from pathlib import Path

from PIL import Image

from fcnseg.data import CityScenes

SCENES = 8


def main() -> None:
    folder = Path("runs/demo") / time.strftime("%Y-%m-%d_%H-%M-%S")
    started = time.monotonic()
    fcnseg("train", "experiment=demo", f"hydra.run.dir={folder}", *sys.argv[1:])
    checkpoint = f"checkpoint={folder}/checkpoints/last.ckpt"
    fcnseg("evaluate", checkpoint, "data=citygen", f"hydra.run.dir={folder}/evaluation")
    write_scenes(folder / "scenes")
    fcnseg("predict", checkpoint, f"input={folder}/scenes", f"output={folder}/predictions")
    print(f"\nThe demo took {time.monotonic() - started:.0f} s. To look at:")
    for path, what in (
        ("predictions/overlays", "the network's view of new streets"),
        ("report.html", "curves, scores, confusion and images of the training, for a browser"),
        ("evaluation/examples.png", "the worst and the best images, with labels and errors"),
        ("metrics.json", "all scores"),
        ("checkpoints/last.ckpt", "the trained network, for fcnseg predict and fcnseg evaluate"),
    ):
        print(f"  {folder / path}: {what}")


def fcnseg(*arguments: str) -> None:
    print(f"\n$ fcnseg {' '.join(arguments)}", flush=True)
    if code := subprocess.run([sys.executable, "-m", "fcnseg", *arguments]).returncode:
        sys.exit(code)


def write_scenes(folder: Path) -> None:
    """A few scenes that neither training nor validation has seen."""
    folder.mkdir(parents=True)
    scenes = CityScenes(SCENES, seed=2, look="real")
    for image, _, name in (scenes[i] for i in range(SCENES)):
        Image.fromarray(image).save(folder / f"{name}.png")


if __name__ == "__main__":
    main()
