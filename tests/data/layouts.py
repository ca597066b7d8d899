"""Tiny datasets in the true layouts of their downloads, written without the library's own label tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from scipy.io import savemat

from fcnseg.data.datasets.pairs import Pairs


def names(dataset: Pairs) -> list[str]:
    return [dataset.name(index) for index in range(len(dataset))]


def noise(height: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def striped(values: Sequence[int], height: int, width: int, turn: int = 0) -> np.ndarray:
    """A (height, width) label whose columns go through the values, beginning with another one each `turn`."""
    return np.tile(np.roll(np.resize(np.asarray(values), width), turn), (height, 1))


def save(array: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def tree(
    root: Path,
    images: str,
    labels: str | None,
    fields: Sequence[Mapping[str, str]],
    values: Sequence[int],
    size: tuple[int, int],
) -> Path:
    """Image and label files of patterns such as rgb/{name}.jpg, one pair for each of the fields."""
    for i, each in enumerate(fields):
        save(noise(*size, i), root / images.format(**each))
        if labels:
            save(striped(values, *size, i).astype(np.uint8), root / labels.format(**each))
    return root


def numbered(count: int, **fields: str) -> list[dict[str, str]]:
    return [{"name": f"{i:05d}", **fields} for i in range(1, count + 1)]


# The true layouts, as their READMEs have them: images, labels, the folders of training and validation, file values.
TREES = {
    "gta5": ("images/{name}.png", "labels/{name}.png", {}, range(35)),
    "bdd100k": (
        "images/10k/{split}/{name}.jpg", "labels/sem_seg/masks/{split}/{name}.png",
        {"train": "train", "val": "val"}, [*range(19), 255],
    ),
    "acdc": (
        "rgb_anon/{weather}/{split}/GOPR0{weather}/GOPR_frame_{name}_rgb_anon.png",
        "gt/{weather}/{split}/GOPR0{weather}/GOPR_frame_{name}_gt_labelTrainIds.png",
        {"train": "train", "val": "val"}, [*range(19), 255],
    ),
    "idd": (
        "leftImg8bit/{split}/12/{name}_leftImg8bit.png", "gtFine/{split}/12/{name}_gtFine_labellevel3Ids.png",
        {"train": "train", "val": "val"}, [*range(26), 255],
    ),
    "mapillary": (
        "{split}/images/{name}.jpg", "{split}/v1.2/labels/{name}.png",
        {"train": "training", "val": "validation"}, range(66),
    ),
    "mapillary_v2.0": (
        "{split}/images/{name}.jpg", "{split}/v2.0/labels/{name}.png",
        {"train": "training", "val": "validation"}, range(124),
    ),
    "ade20k": (
        "images/{split}/ADE_{name}.jpg", "annotations/{split}/ADE_{name}.png",
        {"train": "training", "val": "validation"}, range(151),
    ),
}  # fmt: skip


def plain_tree(name: str, root: Path, train: int, val: int, size: tuple[int, int]) -> Path:
    """A tiny dataset of `TREES`."""
    images, labels, folders, values = TREES[name]
    for split, count in (("train", train), ("val", val)):
        tree(root, images, labels, numbered(count, split=folders.get(split, ""), weather="night"), values, size)
    return root


def gta5(root: Path, train: int, val: int, size: tuple[int, int]) -> Path:
    """Frames 1, 2, ... of which the first are for training, the next for validation, by split.mat."""
    images, labels, _, values = TREES["gta5"]
    tree(root, images, labels, numbered(train + val), values, size)
    numbers = np.arange(1, train + val + 1, dtype=np.uint16)[:, None]
    savemat(root / "split.mat", {"trainIds": numbers[:train], "valIds": numbers[train:], "testIds": numbers[:0]})
    return root


def save_synthia_label(ids: np.ndarray, path: Path, instance: int = 500) -> None:
    """A 16-bit PNG of three channels: classes in the first, instances in the second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rgb = np.stack([ids, np.full_like(ids, instance), np.zeros_like(ids)], axis=-1).astype(np.uint16)
    assert cv2.imwrite(str(path), rgb[..., ::-1])


def synthia_rand_cityscapes(root: Path, count: int, size: tuple[int, int]) -> Path:
    for i in range(count):
        save(noise(*size, i), root / "RGB" / f"{i:07d}.png")
        save_synthia_label(striped(range(23), *size, i), root / "GT" / "LABELS" / f"{i:07d}.png")
    return root


def synthia_seqs(root: Path, folders: Sequence[str], count: int, size: tuple[int, int]) -> Path:
    """`folders` are such as SYNTHIA-SEQS-04-DAWN/Stereo_Left/Omni_F."""
    for folder in folders:
        sequence, camera, view = folder.split("/")
        for i in range(count):
            inside = Path(camera) / view / f"{i:06d}.png"
            save(noise(*size, i), root / sequence / "RGB" / inside)
            ids = striped([*range(13), 15], *size, i)
            save_synthia_label(ids, root / sequence / "GT" / "LABELS" / inside)
    return root


def synthia_rand(root: Path, count: int, size: tuple[int, int], labels: Sequence[str] = ("GTTXT", "GT")) -> Path:
    colours = np.array(
        [
            (0, 0, 0), (128, 128, 128), (128, 0, 0), (128, 64, 128), (0, 0, 192), (64, 64, 128), (128, 128, 0),
            (192, 192, 128), (64, 0, 128), (192, 128, 128), (64, 64, 0), (0, 128, 192),
        ],
        np.uint8,
    )  # fmt: skip
    for i in range(count):
        ids = striped(range(12), *size, i)
        save(noise(*size, i), root / "RGB" / f"{i:07d}.png")
        if "GTTXT" in labels:
            (root / "GTTXT").mkdir(exist_ok=True)
            np.savetxt(root / "GTTXT" / f"{i:07d}.txt", ids, fmt="%d")
        if "GT" in labels:
            save(colours[ids], root / "GT" / f"{i:07d}.png")
    return root


def cityscapes(root: Path, counts: dict[str, int], size: tuple[int, int]) -> Path:
    """`counts` are of files by split and city, such as {"train/aachen": 2}."""
    for folder, count in counts.items():
        city = folder.split("/")[1]
        for i in range(count):
            name = f"{city}_{i:06d}_000019"
            save(noise(*size, i), root / "leftImg8bit" / folder / f"{name}_leftImg8bit.png")
            ids = striped(range(34), *size, i).astype(np.uint8)
            save(ids, root / "gtFine" / folder / f"{name}_gtFine_labelIds.png")
    return root


def kitti(root: Path, count: int, size: tuple[int, int]) -> Path:
    for i in range(count):
        save(noise(*size, i), root / "training" / "image_2" / f"{i:06d}_10.png")
        save(striped(range(34), *size, i).astype(np.uint8), root / "training" / "semantic" / f"{i:06d}_10.png")
    return root


def voc(root: Path, lists: dict[str, Sequence[str]], size: tuple[int, int]) -> Path:
    """`lists` are the names in ImageSets/Segmentation by split; labels are palette PNGs."""
    for split, listed in lists.items():
        path = root / "ImageSets" / "Segmentation" / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{name}\n" for name in listed))
        for i, name in enumerate(listed):
            save(noise(*size, i), root / "JPEGImages" / f"{name}.jpg")
            label = Image.fromarray(striped([*range(21), 255], *size, i).astype(np.uint8))
            label.putpalette(bytes(range(256)) * 3)
            (root / "SegmentationClass").mkdir(exist_ok=True)
            label.save(root / "SegmentationClass" / f"{name}.png")
    return root


def sbd(root: Path, lists: dict[str, Sequence[str]], size: tuple[int, int]) -> Path:
    for folder in ("img", "cls"):
        (root / folder).mkdir(parents=True)
    for split, listed in lists.items():
        (root / f"{split}.txt").write_text("".join(f"{name}\n" for name in listed))
        for i, name in enumerate(listed):
            save(noise(*size, i), root / "img" / f"{name}.jpg")
            classes = striped(range(21), *size, i).astype(np.uint8)
            contents = {"Boundaries": 0, "Segmentation": classes, "CategoriesPresent": np.arange(1, 21)}
            savemat(root / "cls" / f"{name}.mat", {"GTcls": contents})
    return root


def camvid(root: Path, counts: dict[str, int], size: tuple[int, int]) -> Path:
    for split, count in counts.items():
        for i in range(count):
            save(noise(*size, i), root / split / f"{i:06d}.png")
            save(striped(range(12), *size, i).astype(np.uint8), root / f"{split}annot" / f"{i:06d}.png")
    return root


# label_colors.txt of the release, with the class that SegNet's 11-class release gives each.
CAMVID32 = [
    ("Animal", (64, 128, 64), "pedestrian"), ("Archway", (192, 0, 128), "building"),
    ("Bicyclist", (0, 128, 192), "bicyclist"), ("Bridge", (0, 128, 64), "building"),
    ("Building", (128, 0, 0), "building"), ("Car", (64, 0, 128), "car"),
    ("CartLuggagePram", (64, 0, 192), "pedestrian"), ("Child", (192, 128, 64), "pedestrian"),
    ("Column_Pole", (192, 192, 128), "pole"), ("Fence", (64, 64, 128), "fence"),
    ("LaneMkgsDriv", (128, 0, 192), "road"), ("LaneMkgsNonDriv", (192, 0, 64), "road"),
    ("Misc_Text", (128, 128, 64), "sign"), ("MotorcycleScooter", (192, 0, 192), "bicyclist"),
    ("OtherMoving", (128, 64, 64), "car"), ("ParkingBlock", (64, 192, 128), "pavement"),
    ("Pedestrian", (64, 64, 0), "pedestrian"), ("Road", (128, 64, 128), "road"),
    ("RoadShoulder", (128, 128, 192), "pavement"), ("Sidewalk", (0, 0, 192), "pavement"),
    ("SignSymbol", (192, 128, 128), "sign"), ("Sky", (128, 128, 128), "sky"),
    ("SUVPickupTruck", (64, 128, 192), "car"), ("TrafficCone", (0, 0, 64), "pole"),
    ("TrafficLight", (0, 64, 64), "sign"), ("Train", (192, 64, 128), "car"),
    ("Tree", (128, 128, 0), "tree"), ("Truck_Bus", (192, 128, 192), "car"),
    ("Tunnel", (64, 0, 64), "building"), ("VegetationMisc", (192, 192, 0), "tree"),
    ("Void", (0, 0, 0), None), ("Wall", (64, 192, 0), "building"),
]  # fmt: skip


def camvid32(root: Path, lists: dict[str, Sequence[str]], size: tuple[int, int]) -> Path:
    colours = np.array([colour for _, colour, _ in CAMVID32], np.uint8)
    for split, listed in lists.items():
        for i, name in enumerate(listed):
            save(noise(*size, i), root / "701_StillsRaw_full" / f"{name}.png")
            save(colours[striped(range(32), *size, i)], root / "LabeledApproved_full" / f"{name}_L.png")
        (root / f"{split}.txt").write_text("".join(f"{name}\n" for name in listed))
    return root
