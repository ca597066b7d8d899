"""Training samples per second from files, packed shards and caches, against a plain torchvision loader.

`python scripts/benchmark_loading.py --root PATH` loads CamVid (training images, in batches of 10, augmented by random
scale, crop, mirror and colours) in interleaved rounds and prints medians and their ratio to the plain loader: PIL,
torchvision.transforms.v2 and a DataLoader, of its two usual forms (transforms on PIL images, or on tensors) the
faster. `--frames PATH` does so with frames in the layout of SYNTHIA-RAND-CITYSCAPES, such as those of
`scripts/write_synthia.py PATH --size 760 1280`; their labels of 16 bits the plain loader reads with OpenCV, since PIL
cuts them to 8. "read alone" is neither augmented nor put into batches. One thread per process.
"""

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from fcnseg.data import CamVid, SegmentationData, SynthiaRandCityscapes
from fcnseg.data.datasets.pairs import Pairs
from fcnseg.data.storage.packed import Packed
from fcnseg.data.storage.packing import pack
from fcnseg.data.transforms import street_pipeline

BATCH = 10


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Training samples per second by how they are read.",
        epilog="example: python scripts/benchmark_loading.py --root camvid --workers 0 2 --rounds 5",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--root", type=Path, help="CamVid's folder, with train, trainannot, val, ...")
    source.add_argument("--frames", type=Path, help="a folder of SYNTHIA-RAND-CITYSCAPES, with RGB and GT/LABELS")
    parser.add_argument(
        "--sizes",
        nargs="+",
        help="HEIGHTxWIDTH (default: 180x240 360x480, of frames 512x1024 in crops of their pixels)",
    )
    parser.add_argument(
        "--workers", nargs="+", type=int, default=[0, 2], help="worker processes (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds over all loaders (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=200, help="samples of a loader per round (default: %(default)s)")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}, OpenCV {cv2.__version__}"
    print(f"Python {platform.python_version()}, {versions}, {platform.processor() or platform.machine()}")
    with tempfile.TemporaryDirectory() as folder:
        of_camvid = options.frames is None
        train, val = (
            CamVid(options.root, split) if of_camvid else SynthiaRandCityscapes(options.frames, split, block=1)
            for split in ("train", "val")
        )
        pack({"packed": train}, val, Path(folder, "packed"))
        for text in options.sizes or (["180x240", "360x480"] if of_camvid else ["512x1024"]):
            height, width = text.split("x")
            size = int(height), int(width)
            for workers in options.workers:
                by_name = loaders(
                    train, val, Path(folder), size, workers, options.samples, "keep" if of_camvid else "native"
                )
                compare(by_name, options.rounds, size, workers)


def loaders(
    train: Pairs, val: Pairs, folder: Path, size: tuple[int, int], workers: int, samples: int, resize: str
) -> dict[str, Iterable[Any]]:
    """Loaders of the same number of augmented samples, by what they read."""

    def ours(dataset: Any, cache: str = "none") -> Iterable[Any]:
        data = SegmentationData(
            {"a": dataset}, val, size=size, augment=street_pipeline(size, resize=resize), batch_size=BATCH,
            num_workers=workers, steps_per_epoch=samples // BATCH, cache=cache, cache_folder=folder / "cache",
            resize=resize,
        )  # fmt: skip
        data.val = dataset  # nothing else is to be cached
        data.setup("fit")
        return data.train_dataloader()

    alone = {
        "read alone, plain": ReadAlone(Plain(train, size, resize).read, len(train), samples),
        "read alone, fcnseg": ReadAlone(train.__getitem__, len(train), samples),
    }
    return {
        "plain, on PIL images": plain_loader(Plain(train, size, resize), workers, samples),
        "plain, on tensors": plain_loader(Plain(train, size, resize, tensors=True), workers, samples),
        **({} if workers else alone),
        "fcnseg, files": ours(train),
        "fcnseg, packed": ours(Packed(folder / "packed/train/packed")),
        "fcnseg, cache=disk": ours(train, "disk"),
        "fcnseg, cache=ram": ours(train, "ram"),
    }


class Plain(Dataset):
    """What a torchvision user writes: PIL reads, transforms.v2 augments as `street_pipeline` does."""

    def __init__(self, files: Pairs, size: tuple[int, int], resize: str, tensors: bool = False) -> None:
        self.files = list(zip(files.images, files.labels, strict=True))
        self.tensors = tensors
        self.values = torch.full((256,), 255)
        self.values[list(files.label_space.ids)] = torch.arange(len(files.label_space.classes))
        with Image.open(files.images[0]) as first:
            whole = size if resize == "keep" else (first.height, first.width)
        self.augment = v2.Compose(
            [
                v2.ScaleJitter(whole, (0.75, 1.75)),
                v2.RandomCrop(size, pad_if_needed=True, fill={tv_tensors.Mask: 255, "others": 0}),
                v2.RandomHorizontalFlip(),
                v2.RandomApply([v2.ColorJitter(0.3, 0.3, 0.3, 0.03)], p=0.8),
                v2.ToImage(),
            ]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        picture, mask = self.augment(*self.read(index))
        return picture, self.values[mask.long()]

    def read(self, index: int) -> tuple[Any, Tensor]:
        image, label = self.files[index]
        picture: Any = Image.open(image).convert("RGB")
        with Image.open(label) as opened:
            indices = opened.mode in ("L", "P")
            values = np.array(opened) if indices else cv2.imread(str(label), cv2.IMREAD_UNCHANGED)[..., 2]
        return v2.functional.to_image(picture) if self.tensors else picture, tv_tensors.Mask(values.astype(np.uint8))


class ReadAlone:
    """Samples one after the other, as batches of one."""

    def __init__(self, read: Callable[[int], tuple[Any, ...]], length: int, samples: int) -> None:
        self.read, self.length, self.samples = read, length, samples

    def __iter__(self) -> Iterator[tuple[list[Any]]]:
        for number in range(self.samples):
            yield ([self.read(number % self.length)],)


def plain_loader(dataset: Plain, workers: int, samples: int) -> DataLoader:
    sampler = torch.utils.data.RandomSampler(dataset, replacement=True, num_samples=samples // BATCH * BATCH)
    return DataLoader(dataset, BATCH, sampler=sampler, num_workers=workers, persistent_workers=workers > 0)


def compare(by_name: dict[str, Iterable[Any]], rounds: int, size: tuple[int, int], workers: int) -> None:
    """Print medians over rounds in which every loader has its turn."""
    for loader in by_name.values():  # starts the workers and fills the page cache
        rate(loader)
    rates: dict[str, list[float]] = {name: [] for name in by_name}
    for _ in range(rounds):
        for name, loader in by_name.items():
            rates[name].append(rate(loader))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    base = max(value for name, value in medians.items() if name.startswith("plain"))
    print(f"\n{size[0]}x{size[1]}, {workers} workers, samples/s: median (least to most) of {rounds} rounds")
    for name, values in rates.items():
        spread = f"({min(values):.0f} to {max(values):.0f})"
        print(f"  {name:21} {medians[name]:7.1f}  {spread:15} {medians[name] / base:5.2f}x")


def rate(loader: Iterable[Any], clock: Callable[[], float] = time.perf_counter) -> float:
    started = clock()
    samples = sum(len(batch["image"] if isinstance(batch, dict) else batch[0]) for batch in loader)
    return samples / (clock() - started)


if __name__ == "__main__":
    main()
