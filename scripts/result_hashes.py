"""Print hashes of what the library computes: for a change that must not alter results, run it before and after.

Four parts, each a line or two of SHA-256: the masks of the shipped model on embedded scenes, the losses and the last
checkpoint of short trainings, and the scores of a seeded reference network. Equal lines are equal to the last bit;
other hardware, another number of threads or another release of torch may give other lines.
"""

import argparse
import csv
import hashlib
import os
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import fcnseg
from fcnseg.data import CityScenes

EXAMPLE = "example: python scripts/result_hashes.py --camvid PATH --keep before"


def demo_masks(scenes: int) -> Iterator[tuple[str, str]]:
    """The shipped model's masks of embedded scenes."""
    predictor = fcnseg.Predictor.from_pretrained("demo", device="cpu")
    images = CityScenes(scenes, seed=7, look="real")
    masks = [predictor(images[i][0]).mask for i in range(scenes)]
    yield f"demo: {scenes} masks", digest(masks)


def reference_scores() -> Iterator[tuple[str, str]]:
    """The scores of the reference's FCN-AlexNet with weights seeded by the layers' names."""
    model = fcnseg.create_model("fcn32s_caffenet", num_classes=21, padding="caffe").eval()
    blobs = {}
    for name, layer in model.named_modules():
        if isinstance(layer, torch.nn.Conv2d):
            rng = np.random.default_rng(zlib.crc32(name.encode()))
            shape = tuple(layer.weight.shape)
            weight = (rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))).astype("float32")
            blobs[name.removeprefix("backbone.")] = [weight, rng.standard_normal(shape[:1]).astype("float32")]
    fcnseg.load_caffe_weights(model, blobs, verbose=False)
    images = np.random.default_rng(7).standard_normal((1, 3, 97, 131)).astype("float32") * 50
    with torch.inference_mode():
        yield "reference: scores of fcn32s_caffenet", digest([model(torch.from_numpy(images)).numpy()])


def training(name: str, overrides: list[str], steps: int, folder: Path) -> Iterator[tuple[str, str]]:
    """The losses of every step, the last weights with the optimiser's state, and the scores, of one `fcnseg train`."""
    command = [sys.executable, "-m", "fcnseg", "train", *overrides, f"trainer.max_steps={steps}", "data.num_workers=0"]
    command += ["trainer.log_every_n_steps=1", f"hydra.run.dir={folder}", "callbacks.progress=null"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder.parent)
    with open(folder / "metrics.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("train/loss")]
    losses = [row["train/loss"] for row in rows]
    yield f"{name}: losses of {len(losses)} steps, the last {losses[-1]}", digest(losses)
    content = torch.load(folder / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=True)
    kept = {key: content[key] for key in ("state_dict", "optimizer_states", "lr_schedulers", "hyper_parameters")}
    yield f"{name}: last.ckpt", digest(kept)
    with np.load(folder / "confusions.npz") as file:
        yield f"{name}: confusions of {len(file['names'])} images", digest([file["matrices"]])


def digest(value: Any) -> str:
    """SHA-256 over nested values, arrays and tensors by their type, shape and bytes."""
    state = hashlib.sha256()
    for part in _parts(value):
        state.update(part)
    return state.hexdigest()


def _parts(value: Any) -> Iterator[bytes]:
    if isinstance(value, dict):
        for key in sorted(value, key=str):
            yield f"{key}:".encode()
            yield from _parts(value[key])
    elif isinstance(value, list | tuple):
        yield f"{len(value)} values".encode()
        for each in value:
            yield from _parts(each)
    elif isinstance(value, torch.Tensor | np.ndarray):
        array = np.ascontiguousarray(value)
        yield f"{array.dtype} {array.shape}".encode()
        yield array.tobytes()
    else:
        yield repr(value).encode()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--camvid", type=Path, help="CamVid's folder; without it that training is left out")
    parser.add_argument("--scenes", type=int, default=20, help="of the shipped model's masks (default: 20)")
    parser.add_argument("--steps", type=int, default=20, help="of each training (default: 20)")
    parser.add_argument("--keep", type=Path, help="keep the runs here, such as to load their checkpoints later")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = (arguments.keep or Path(scratch)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
        small = ["data.size=[90,120]", "model=fcn8s_vgg16_bn", "model.width=0.25", "data.batch_size=4"]
        citygen = ["data=citygen", *small, "data.train.real.length=40", "data.train.synthetic.length=40"]
        parts = [
            demo_masks(arguments.scenes),
            reference_scores(),
            training(
                "citygen", [*citygen, "data.val.length=8", "callbacks.best=null"], arguments.steps, folder / "citygen"
            ),
        ]
        if arguments.camvid:
            root = f"data.root={arguments.camvid.absolute()}"
            quick = ["experiment=camvid_quick", root, "callbacks.best=null"]
            parts.append(training("camvid_quick", quick, arguments.steps, folder / "camvid_quick"))
        for part in parts:
            for what, value in part:
                print(f"{value}  {what}", flush=True)


if __name__ == "__main__":
    main()
