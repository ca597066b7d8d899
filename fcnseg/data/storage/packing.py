"""Datasets packed into a few large files (litdata's shards) that read faster than thousands of small ones.

FOLDER/dataset.json            what is packed and how; there only when everything is
FOLDER/train/NAME, FOLDER/val  a `Packed` dataset each: dataset.json, litdata's index.json and chunk-*.bin
"""

import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from filelock import FileLock, Timeout

from fcnseg.atomic import replacing
from fcnseg.data.dataset import Sample, SegmentationDataset, read_all
from fcnseg.data.resizing import resize_image, resize_mask
from fcnseg.data.storage.cache import checksum, pieces
from fcnseg.data.storage.fingerprint import identity
from fcnseg.errors import InputError
from fcnseg.geometry import require_resize, shown_size
from fcnseg.labels import LabelSpace

MANIFEST = "dataset.json"
STARTED = "packing.json"  # the manifest's name until everything is written
SHARD_BYTES = 64 << 20
VERSION = 1


@dataclass(frozen=True)
class Packing:
    """How samples are packed.

    Attributes:
        size: (height, width) that samples are resized to; their own by default.
        resize: how they come to it, one of `RESIZES`. With "keep" they fit into it, without padding, which training
            adds where it needs it.
        jpeg_quality: 1 to 100 for images as JPEG, which is smaller and not lossless; pixels as they are by default,
            which is what reads fastest.

    Raises:
        InputError: when a value is out of range.
    """

    size: tuple[int, int] | None = None
    jpeg_quality: int | None = None
    resize: str = "keep"

    def __post_init__(self) -> None:
        if self.size is not None:
            sides = tuple(self.size) if isinstance(self.size, list | tuple) else ()
            if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
                raise InputError(f"size={self.size}: expected [height, width] in pixels")
            object.__setattr__(self, "size", sides)
        quality = self.jpeg_quality
        if quality is not None and not (isinstance(quality, int) and 1 <= quality <= 100):
            raise InputError(f"jpeg_quality={quality!r}: expected a whole number from 1 to 100")
        require_resize(self.resize)

    def resized(self, image: np.ndarray, mask: np.ndarray, name: str) -> Sample:
        size = shown_size((mask.shape[0], mask.shape[1]), self.size, self.resize)
        return resize_image(image, size), resize_mask(mask, size), name

    def settings(self) -> dict[str, Any]:
        """Plain values for JSON: what samples depend on."""
        named = asdict(self) if self.size else {"size": None, "jpeg_quality": self.jpeg_quality}
        return json.loads(json.dumps(named))

    def encode(self, sample: Sample) -> dict[str, Any]:
        """A sample as litdata stores it: arrays, of one axis where they are the bytes of a JPEG and a PNG file."""
        image, mask, name = sample
        if self.jpeg_quality is not None:
            image, mask = encode_jpeg(image, self.jpeg_quality, name), cv2.imencode(".png", mask)[1]
        return {"image": image, "mask": mask, "name": name, "checksum": checksum(pieces(image, mask, name))}


def encode_jpeg(image: np.ndarray, quality: int, name: str) -> np.ndarray:
    """The bytes of an (H, W, 3) uint8 RGB image as a JPEG file."""
    if image.dtype != np.uint8 or image.shape[2] != 3:
        raise InputError(
            f"jpeg_quality={quality}: {name} is {image.dtype} with {image.shape[2]} channels; expected uint8 RGB"
        )
    return cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]


def decode_image(stored: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(_decode(stored, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB) if stored.ndim == 1 else stored


def decode_mask(stored: np.ndarray) -> np.ndarray:
    return _decode(stored, cv2.IMREAD_GRAYSCALE) if stored.ndim == 1 else stored


def _decode(file: np.ndarray, flags: int) -> np.ndarray:
    decoded = cv2.imdecode(file, flags)
    if decoded is None:
        raise ValueError("no image")
    return decoded


class Packed:
    """One packed dataset, read by random index.

    Every sample carries a checksum, which a process looks at when it first reads it.

    Args:
        folder: what `pack` has written: `FOLDER/val` or `FOLDER/train/NAME`.

    Raises:
        InputError: when the folder holds no finished dataset, a file is missing or has another size, or, on reading,
            a sample is damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        manifest = read_manifest(self.folder)
        if "samples" not in manifest:
            raise InputError(f"{self.folder}: several datasets; expected one of {', '.join(map(str, parts(manifest)))}")
        self.label_space = LabelSpace(**manifest["label_space"])
        self.source = str(manifest["source"])
        self.scaling: str | None = manifest["scaling"]
        for name, value in (manifest.get("normalisation", {}) | manifest.get("drawing", {})).items():
            setattr(self, name, value)
        self.length = int(manifest["samples"])
        check_files(self.folder, manifest["files"])
        self._checked = np.zeros(self.length, bool)
        self._reader: Any = None

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        """The (H, W, C) image, the (H, W) uint8 mask with 255 ignored, and the name.

        Raises:
            InputError: when the sample is damaged.
        """
        with self._naming(index):
            stored = self.stored(index)
            return decode_image(stored["image"]), decode_mask(stored["mask"]), stored["name"]

    def mask(self, index: int) -> np.ndarray:
        """The (H, W) uint8 mask alone, without decoding the image."""
        with self._naming(index):
            return decode_mask(self.stored(index)["mask"])

    def stored(self, index: int) -> dict[str, Any]:
        """A sample as it was encoded."""
        if not 0 <= index < self.length:
            raise IndexError(f"index {index} of {self.length} samples")
        if self._reader is None:
            self._reader = open_shards(self.folder)
        item = self._reader[int(index)]
        if not self._checked[index]:
            if checksum(pieces(item["image"], item["mask"], item["name"])) != item["checksum"]:
                raise ValueError("its bytes have changed")
            self._checked[index] = True
        return item

    def __getstate__(self) -> dict[str, Any]:
        """A process that is started anew opens the shards itself."""
        return {**self.__dict__, "_reader": None, "_checked": np.zeros(self.length, bool)}

    @contextmanager
    def _naming(self, index: int) -> Iterator[None]:
        """Name the dataset and the sample in whatever litdata and OpenCV make of damaged bytes."""
        try:
            yield
        except (IndexError, InputError):
            raise
        except Exception as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise InputError(f"{self.folder}: sample {index} is damaged ({reason[0]}); pack the data again") from error


def litdata() -> Any:
    """The library, which must not look for newer versions of itself.

    Raises:
        InputError: when it is not installed.
    """
    os.environ.setdefault("LITDATA_DISABLE_VERSION_CHECK", "1")
    try:
        return import_module("litdata.streaming")
    except ImportError:
        raise InputError("packed data need litdata; install it with pip install 'fcnseg[packed]'") from None


def open_shards(folder: Path) -> Any:
    # Its default decodes dozens of neighbours with every sample, for reading in order.
    return litdata().StreamingDataset(str(folder.resolve()), batch_decode=0)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished pack, or of one of its datasets.

    Raises:
        InputError: when there is none, or it is damaged.
    """
    path = folder / MANIFEST
    if not path.is_file():
        reason = (
            "was interrupted while it was packed; run the same command again" if (folder / STARTED).exists() else ""
        )
        raise InputError(f"{folder}: {reason or f'no {MANIFEST}; expected a folder written by fcnseg data pack'}")
    try:
        manifest = json.loads(path.read_text())
        version = manifest["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged ({type(error).__name__}); pack the data again") from None
    if version != VERSION:
        raise InputError(f"{path}: version {version}; expected {VERSION}; pack the data again")
    return manifest


def parts(manifest: Mapping[str, Any]) -> list[Path]:
    """The folders of a pack's datasets, relative to it."""
    return [*(Path("train", name) for name in manifest["train"]), Path("val")]


def check_files(folder: Path, files: Mapping[str, int]) -> None:
    """Refuse files that are missing or have another size than when they were written."""
    for name, size in files.items():
        path = folder / name
        found = path.stat().st_size if path.is_file() else None
        if found != size:
            state = "missing" if found is None else f"{found} bytes"
            raise InputError(f"{path}: {state}; expected {size} bytes; pack the data again")


def packed_nodes(folder: str | Path) -> dict[str, Any]:
    """The training and validation datasets of a pack, as nodes of a config.

    Raises:
        InputError: when the folder holds no finished pack.
    """
    manifest = read_manifest(Path(folder))
    if "train" not in manifest:
        raise InputError(f"{folder}: one dataset of a pack; expected the folder that holds train and val")
    node = {"_target_": "fcnseg.data.Packed"}
    return {
        "train": {name: {**node, "folder": str(Path(folder, "train", name))} for name in manifest["train"]},
        "val": {**node, "folder": str(Path(folder, "val"))},
    }


# Writing


def pack(
    train: Mapping[str, SegmentationDataset],
    val: SegmentationDataset,
    folder: str | Path,
    packing: Packing = Packing(),
    progress: Callable[[str], None] = lambda part: None,
) -> None:
    """Write training domains and validation data as shards, and read every sample back.

    A pack that was interrupted goes on with the dataset at which it stopped. The manifest is written last.

    Args:
        train, val: the datasets; training domains by name.
        folder: new, empty, or of an interrupted pack of the same data.
        packing: how samples are packed.
        progress: is told `train/NAME` or `val` for every sample that is written, and again when it is verified.

    Raises:
        InputError: when the folder holds something else, another process writes to it, or a sample is unreadable.
        OSError: naming the folder, when the disk is full.
    """
    folder = Path(folder)
    datasets = {f"train/{name}": dataset for name, dataset in train.items()} | {"val": val}
    plan = {
        "version": VERSION,
        "train": list(train),
        "sources": {part: identity(dataset)[1] for part, dataset in datasets.items()},
        **packing.settings(),
    }
    with _alone(folder):
        if _begun(folder, plan):
            return
        for part, dataset in datasets.items():
            if not (folder / part / MANIFEST).is_file():
                with _naming_output(folder / part):
                    write(dataset, folder / part, packing, partial(progress, part))
        os.replace(folder / STARTED, folder / MANIFEST)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep every other process from packing to the same folder."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: expected a folder, found a file")
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(f"{folder}: another process is packing to it") from None
    try:
        yield
    finally:
        (folder / ".lock").unlink(missing_ok=True)
        lock.release()


def _begun(folder: Path, plan: Mapping[str, Any]) -> bool:
    """Whether the pack is complete; notes in a new folder what is going to be packed.

    Raises:
        InputError: when the folder holds something else.
    """
    for name in (MANIFEST, STARTED):
        if (path := folder / name).is_file():
            if path.read_text() != json.dumps(plan, indent=2):
                raise InputError(f"{folder}: holds other data or settings; remove it, or choose another output")
            return name == MANIFEST
    if foreign := [path.name for path in folder.iterdir() if not path.name.startswith(".")]:
        raise InputError(f"{folder}: holds {sorted(foreign)[0]}; expected a new or an empty folder")
    with replacing(folder / STARTED) as temporary:
        temporary.write_text(json.dumps(plan, indent=2))
    return False


@contextmanager
def _naming_output(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(folder)
        raise


def write(
    dataset: SegmentationDataset, folder: Path, packing: Packing, step: Callable[[], None] = lambda: None
) -> None:
    """Write one dataset, verify it, and then its manifest; what an interrupted process has left goes first."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    writer = litdata().Cache(str(folder.resolve()), chunk_bytes=SHARD_BYTES)
    checksums = np.zeros(len(dataset), np.uint32)
    for index, sample in enumerate(read_all(dataset)):
        writer[index] = item = packing.encode(packing.resized(*sample))
        checksums[index] = item["checksum"]
        step()
    writer.done()
    writer.merge()
    verify(folder, checksums, step)
    manifest = {
        "version": VERSION,
        "samples": len(dataset),
        "label_space": dataset.label_space.to_dict(),
        "scaling": getattr(dataset, "scaling", None),
        "normalisation": {name: getattr(dataset, name) for name in ("mean", "std", "clip") if hasattr(dataset, name)},
        "drawing": {name: getattr(dataset, name) for name in ("labelled", "parts") if hasattr(dataset, name)},
        "source": f"{zlib.crc32(checksums.tobytes()):08x}",
        "files": {path.name: path.stat().st_size for path in sorted(folder.iterdir())},
    }
    with replacing(folder / MANIFEST) as temporary:
        temporary.write_text(json.dumps(manifest, indent=2))


def verify(folder: Path, checksums: np.ndarray, step: Callable[[], None]) -> None:
    """Read every sample back from the shards and compare it with what its source gave."""
    shards = open_shards(folder)
    if len(shards) != len(checksums):
        raise InputError(f"{folder}: {len(shards)} samples can be read back; expected {len(checksums)}")
    for index, expected in enumerate(checksums):
        item = shards[index]
        if checksum(pieces(item["image"], item["mask"], item["name"])) != expected:
            raise InputError(
                f"{folder}: sample {index} cannot be read back; expected a disk that keeps what is written"
            )
        step()
