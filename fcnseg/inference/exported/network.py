"""What all exported networks are: a spec and how images go in, read from the file itself, and scores that come out."""

import json
import sys
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fcnseg.errors import InputError
from fcnseg.inference.device import default_device
from fcnseg.models import segmented
from fcnseg.models.fcn import normalised
from fcnseg.models.spec import LONGEST, read_spec

KEY = "fcnseg"
"""Of the metadata, a JSON, in each format's own place for it."""

VERSION = 1
"""Of the metadata's form."""

EXTRAS = {"executorch": "executorch", "litert_torch": "litert", "ai_edge_litert": "litert"}
"""Of the packages that the extra `export` has not, the extra that has them."""

IMAGES, LOGITS, MASK = "images", "logits", "mask"
"""Names of the input and of the output."""


class Exported(ABC):
    """An exported network; it meets `fcnseg.inference.network.Network`.

    Args:
        path: the file.
        device: see `load_exported`.

    Attributes:
        facts: what the file tells: the spec under "architecture", "normalise", "argmax", "precision", "tiling", ...
        spec: of the network that it was made of.
        gives: "logits" or "mask".

    Raises:
        InputError: when the file is damaged or not from here.
    """

    def __init__(self, path: Path, device: str | None) -> None:
        self.path, self.device = path, default_device(device or "cpu")
        with self._refusing():
            self.facts = parse_facts(path, self._open())
        self.spec = read_spec(self.facts["architecture"], str(path))
        self.gives = MASK if self.facts["argmax"] else LOGITS
        channels = torch.tensor(self.spec.mean).view(1, -1, 1, 1), torch.tensor(self.spec.std).view(1, -1, 1, 1)
        self._mean, self._std = channels

    @abstractmethod
    def _open(self) -> str | None:
        """Load the file; returns its metadata, None where there is none."""

    @abstractmethod
    def run(self, images: Tensor) -> Tensor:
        """What the file makes of (N, C, h, w) float32 images on the CPU: its output as it is."""

    def logits(self, images: Tensor) -> Tensor:
        """(N, C, h, w) images in file values to (N, num_classes, h, w) float32 logits.

        Of a file that gives masks they are 1 for the class and 0 for the others.
        """
        found = self._run(images)
        if self.gives == LOGITS:
            return found.float()
        return torch.nn.functional.one_hot(found.long(), self.spec.num_classes).permute(0, 3, 1, 2).float()

    def segment_each(
        self,
        images: Tensor,
        sizes: Sequence[tuple[int, int]],
        shown: Sequence[tuple[int, int]] | None = None,
    ) -> list[Tensor]:
        """(N, C, h, w) images in file values to N int64 masks, each of its own size (H, W), as `FCN.segment_each`."""
        return segmented(self.logits(images), sizes, shown)

    def tiling(self) -> dict[str, int] | None:
        """As `FCN.tiling` of the network that it was made of."""
        tiling = self.facts.get("tiling")
        return None if tiling is None else {key: int(value) for key, value in tiling.items()}

    def _run(self, images: Tensor) -> Tensor:
        # Compiled programs take the layout of memory that they were traced with for granted.
        images, size = images.cpu().float().contiguous(), self.facts.get("size")
        if size is not None and tuple(size) != tuple(images.shape[-2:]):
            expected, found = ("x".join(map(str, each)) for each in (size, images.shape[-2:]))
            raise InputError(f"{self.path}: takes images of {expected}, not {found} (HxW)")
        if not self.facts["normalise"]:
            images = images.flip(1) if self.spec.channel_order == "bgr" else images
            images = normalised(images, self._mean, self._std, self.spec).contiguous()
        try:
            return self.run(images)
        except Exception as error:
            size = "x".join(map(str, images.shape[-2:]))
            raise InputError(f"{self.path}: fails on {len(images)} images of {size} ({reason(error)})") from error

    @property
    def checksum(self) -> int:
        """Of the file."""
        return zlib.crc32(self.path.read_bytes())

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """Turn whatever a runtime raises for a file that it cannot read into one line."""
        try:
            yield
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"{self.path}: cannot be read, it may be damaged ({reason(error)})") from error


def parse_facts(path: Path, text: str | None) -> dict[str, Any]:
    """The metadata of a file.

    Raises:
        InputError: when there is none, or of another form.
    """
    if text is None:
        raise InputError(f"{path}: was not written by fcnseg export: it does not tell its classes and preparation")
    facts = json.loads(text)
    if not isinstance(facts, dict) or facts.get("format_version") != VERSION:
        version = facts.get("format_version") if isinstance(facts, dict) else None
        raise InputError(f"{path}: has metadata of version {str(version)[:20]}; expected {VERSION}")
    if wrong := [key for key, sound in SOUND.items() if not sound(facts.get(key))]:
        raise InputError(f"{path}: has damaged metadata ({wrong[0]})")
    return facts


def _are_lengths(found: Any, least: int) -> bool:
    return all(type(length) is int and least <= length <= LONGEST for length in found)


SOUND: dict[str, Callable[[Any], bool]] = {
    "architecture": lambda found: isinstance(found, dict),
    "normalise": lambda found: isinstance(found, bool),
    "argmax": lambda found: isinstance(found, bool),
    "precision": lambda found: isinstance(found, str),
    "tiling": lambda found: (
        found is None
        or (
            isinstance(found, dict)
            and found.keys() == {"step", "before", "after"}
            and _are_lengths(found.values(), 0)
            and found["step"] > 0
        )
    ),
    "size": lambda found: found is None or (isinstance(found, list) and len(found) == 2 and _are_lengths(found, 1)),
}
"""Which values the keys of the metadata may have."""


def reason(error: BaseException) -> str:
    """The first line of what went wrong, without line breaks and not endless."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[-1].split())[:200] if lines else type(error).__name__


def need(package: str, path: Path | None = None) -> Any:
    """A package of one of the extras, `export` where no other has it.

    Raises:
        InputError: with the command that installs it.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # importing connects to nothing
    try:
        return import_module(package)
    except ImportError:
        name = package.split(".")[0]
        extra = EXTRAS.get(name, "export")
        raise InputError(f"{path or name}: needs {name}; pip install 'fcnseg[{extra}]'") from None


def to_numpy(images: Tensor) -> np.ndarray:
    """Contiguous, as runtimes take it."""
    return np.ascontiguousarray(images.numpy())
