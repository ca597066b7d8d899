"""Packed datasets read: by random index, from a folder on a disk or in an object store.

FOLDER/dataset.json            what is packed and how; there only when everything is
FOLDER/train/NAME, FOLDER/val  a `Packed` dataset each: dataset.json, litdata's index.json and chunk-*.bin

litdata reads the shards of a folder in place. Those in an object store are fetched whole, into a folder of limited
size from which litdata reads them: its own fetching is for reading in order. Taken at random, every sample would be
two requests each time, or be evicted by one worker while another waits for it.
"""

import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from importlib import import_module
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from fcnseg.atomic import replacing
from fcnseg.data.dataset import Sample
from fcnseg.data.showing import Shown
from fcnseg.data.storage.cache import LIMIT, checksum, pieces
from fcnseg.data.storage.encoding import decode_image, decode_mask
from fcnseg.data.storage.folders import Fetched, file_sizes, is_remote, read_file, within
from fcnseg.data.storage.shard_index import INDEX, read_index
from fcnseg.errors import InputError
from fcnseg.labels import LabelSpace
from fcnseg.user_cache import user_cache

MANIFEST = "dataset.json"
STARTED = "packing.json"  # the manifest's name until everything is written
VERSION = 1
NORMALISATION = ("mean", "std", "clip")
DRAWING = ("labelled", "parts")

SAMPLES = ("samples", "label_space", "scaling", "source", "files")
"""What the manifest of a dataset has."""


def _are_sizes(found: Any) -> bool:
    return isinstance(found, dict) and all(isinstance(size, int) for size in found.values())


def _is_name(found: str) -> bool:
    """Whether it is the name of a folder, and not of one elsewhere."""
    return found not in ("", ".", "..") and not set(found) & set("/\\\0")


def _are_parts(found: Any) -> bool:
    return isinstance(found, list) and all(
        isinstance(part, list) and len(part) == 2 and isinstance(part[0], int) and _is_positive(part[1])
        for part in found
    )


def _is_positive(found: Any) -> bool:
    return isinstance(found, int | float) and isfinite(found) and found > 0


def _are_numbers(found: Any) -> bool:
    return isinstance(found, list) and all(isinstance(value, int | float) and isfinite(value) for value in found)


SOUND: dict[str, Callable[[Any], bool]] = {
    "train": lambda found: isinstance(found, list) and all(isinstance(name, str) and _is_name(name) for name in found),
    "samples": lambda found: isinstance(found, int) and found >= 0,
    "scaling": lambda found: found is None or isinstance(found, str),
    "source": lambda found: isinstance(found, str),
    "files": _are_sizes,
    "normalisation": lambda found: (
        isinstance(found, dict)
        and all(_are_numbers(found.get(name, [])) for name in ("mean", "std"))
        and (found.get("clip") is None or _is_positive(found["clip"]))
    ),
    "drawing": lambda found: (
        isinstance(found, dict) and isinstance(found.get("labelled", True), bool) and _are_parts(found.get("parts", []))
    ),
}
"""Which values the keys of a manifest may have."""

_reading = threading.RLock()  # litdata's readers are not made for several threads


class Packed(Shown):
    """One packed dataset, read by random index.

    Every sample carries a checksum, which a process looks at when it first reads it.

    Args:
        folder: what `pack` has written: `FOLDER/val` or `FOLDER/train/NAME`; or a URL of its copy in an object store
            that fsspec knows, such as s3://bucket/packed/val, with credentials and endpoint of the environment.
        cache_folder: where shards of an object store are kept, in `packed`; by default the user's cache folder.
        cache_limit: how many GB (10^9 bytes) these may take.

    Raises:
        InputError: when the folder holds no finished dataset, it cannot be reached, a file is missing or has another
            size, the index asks for what `pack` does not write, or, on reading, a sample is damaged.
    """

    def __init__(self, folder: str | Path, cache_folder: str | Path | None = None, cache_limit: float = LIMIT) -> None:
        self.folder = within(folder)
        manifest = read_manifest(self.folder)
        if "samples" not in manifest:
            raise InputError(f"{self.folder}: several datasets; expected one of {', '.join(parts(manifest))}")
        self.label_space = LabelSpace.from_dict(manifest.get("label_space"), str(self.folder))
        self.source = str(manifest["source"])
        self.scaling: str | None = manifest["scaling"]
        for kind, names in (("normalisation", NORMALISATION), ("drawing", DRAWING)):
            for name in set(names) & set(manifest.get(kind, ())):
                setattr(self, name, manifest[kind][name])
        self.length = int(manifest["samples"])
        self._files: dict[str, int] = manifest["files"]
        check_files(self.folder, self._files)
        index = read_file(self.folder, INDEX)
        self._chunks = read_index(self.folder, index, self._files, self.length)
        self._fetched: Fetched | None = None
        if is_remote(self.folder):
            state = sha256(f"{self.folder}\n{json.dumps(manifest)}".encode()).hexdigest()[:32]
            place = Path(cache_folder or user_cache()).expanduser() / "packed" / state
            self._fetched = Fetched(str(self.folder), self._files, place, cache_limit)
            with replacing(place / INDEX) as temporary:
                temporary.write_bytes(index)
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
        with _reading:
            if self._fetched is None:
                return self._read(index)
            shard = self._chunks.name_of(index)
            self._fetched.hold(shard)
            try:
                return self._read(index)
            except Exception:  # perhaps the local copy alone is damaged
                self._reader = None
                self._fetched.drop(shard)
                self._fetched.hold(shard)
                return self._read(index)

    def _read(self, index: int) -> dict[str, Any]:
        if self._reader is None:
            self._reader = self._open()
        item = self._reader[int(index)]
        if not self._checked[index]:
            if checksum(pieces(item["image"], item["mask"], item["name"])) != item["checksum"]:
                raise ValueError("its bytes have changed")
            self._checked[index] = True
        return item

    def _open(self) -> Any:
        """The shards, by an index that is looked at again: it says how bytes become objects."""
        folder = Path(self.folder) if self._fetched is None else self._fetched.folder
        read_index(folder, read_file(folder, INDEX), self._files, self.length)
        return open_shards(folder)

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


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The manifest of a finished pack, or of one of its datasets.

    Raises:
        InputError: when there is none, it cannot be reached, or it is damaged.
    """
    path = within(folder, MANIFEST)
    try:
        manifest = json.loads(read_file(folder, MANIFEST))
        version = manifest["version"]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{folder}: {_without_manifest(folder, error)}") from None
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: damaged ({type(error).__name__}); pack the data again") from None
    if version != VERSION:
        raise InputError(f"{path}: version {version}; expected {VERSION}; pack the data again")
    if wrong := [key for key, sound in SOUND.items() if key in manifest and not sound(manifest[key])]:
        raise InputError(f"{path}: damaged ({wrong[0]}); pack the data again")
    if "train" not in manifest and (missing := [key for key in SAMPLES if key not in manifest]):
        raise InputError(f"{path}: damaged ({missing[0]} is missing); pack the data again")
    return manifest


def _without_manifest(folder: str | Path, error: OSError) -> str:
    """Why a folder has no manifest, and what was expected."""
    if not is_remote(folder) and Path(folder, STARTED).exists():
        return "was interrupted while it was packed; run the same command again"
    reason = f" ({error})" if is_remote(folder) and " " in str(error) else ""
    return f"no {MANIFEST}{reason}; expected a folder written by fcnseg data pack"


def parts(manifest: Mapping[str, Any]) -> list[str]:
    """The folders of a pack's datasets, relative to it."""
    return [*(f"train/{name}" for name in manifest["train"]), "val"]


def check_files(folder: str | Path, files: Mapping[str, int]) -> None:
    """Refuse files that are missing or have another size than when they were written."""
    sizes = file_sizes(folder)
    for name, size in files.items():
        found = sizes.get(name)
        if found != size:
            state = "missing" if found is None else f"{found} bytes"
            raise InputError(f"{within(folder, name)}: {state}; expected {size} bytes; pack the data again")


def packed_nodes(folder: str | Path, cache_folder: str | None = None, cache_limit: float = LIMIT) -> dict[str, Any]:
    """The training and validation datasets of a pack, as nodes of a config.

    Args:
        folder: on a disk, or a URL.
        cache_folder, cache_limit: as of `Packed`, for a URL.

    Raises:
        InputError: when the folder holds no finished pack.
    """
    manifest = read_manifest(folder)
    if "train" not in manifest:
        raise InputError(f"{folder}: one dataset of a pack; expected the folder that holds train and val")
    node: dict[str, Any] = {"_target_": "fcnseg.data.Packed"}
    if is_remote(folder):
        node |= {"cache_folder": cache_folder, "cache_limit": cache_limit}
    return {
        "train": {name: {**node, "folder": str(within(folder, "train", name))} for name in manifest["train"]},
        "val": {**node, "folder": str(within(folder, "val"))},
    }
