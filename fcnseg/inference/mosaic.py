"""The mask of an image of any size, in bounded memory, and gone on with where it was stopped.

The scores of a chain of layers are computed row by row (`fcnseg.models.rows`), those of other networks in tiles
(`fcnseg.inference.tiles`); what is seen at the size of the training's images is shrunk strip by strip. What is done so
far lies in a hidden folder beside the result until that is whole.
"""

import ctypes
import io
import json
import mmap
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fcnseg.atomic import replacing
from fcnseg.data.resizing import padded_image, scale_values
from fcnseg.errors import InputError
from fcnseg.inference.averaging import Averaging, averaged_logits
from fcnseg.inference.network import Network
from fcnseg.inference.scale import Scale
from fcnseg.inference.scene import Scene
from fcnseg.inference.shrunk import shrunk
from fcnseg.inference.tiles import Part, Rescaled, Tiles
from fcnseg.labels import IGNORE_INDEX
from fcnseg.models import FCN, likeliest, resampled_rows
from fcnseg.models.pickles import read_torch
from fcnseg.models.rows import RowStream, streams

PROCESS = 600 * 10**6
"""Bytes that Python with torch, OpenCV and GDAL takes before it has done anything."""

SAVE_EVERY = 30.0
"""Seconds after which what is done is written down."""

KEPT = 2**26
"""Bytes of the mask after which they are written down too, for their memory."""

TILE_BYTES = 900
"""Memory that a pixel of a tile takes: of VGG-16 the input and output of conv1_2, and some of their copies."""

Advance = Callable[[float], None]


@dataclass(frozen=True)
class Windows:
    """How an image beyond memory is computed.

    Attributes:
        memory: bytes that the process may take.
        overlap: None: the logits are those of the whole image. Or pixels by which tiles overlap at least, within
            which their logits fade into each other's; for networks that are computed row by row it saves nothing.
        tile: side of the tiles in pixels; as large as memory allows by default.
        batch: tiles that are computed at once.

    Raises:
        InputError: for a value out of range.
    """

    memory: int = 2 * 10**9
    overlap: int | None = None
    tile: int | None = None
    batch: int = 1

    def __post_init__(self) -> None:
        if self.memory < PROCESS:
            raise InputError(f"memory={self.memory / 1e9:g}: expected at least {PROCESS / 1e9:g} GB")
        if (self.overlap or 0) < 0 or (self.tile or 1) < 1 or self.batch < 1:
            raise InputError(f"overlap={self.overlap}, tile={self.tile}, batch={self.batch}: expected positive numbers")


class Mosaic:
    """The (H, W) mask of a scene, computed part by part.

    Args:
        network: on its device.
        scene: the image.
        scale: at which it is seen.
        windows: how it is computed.
        folder: for what is done so far. A mosaic of the same network, image and settings goes on there.
        averaging: over views, where the image is seen at the training's size; else its temperature alone counts.

    Raises:
        InputError: when memory does not suffice for the image's width.
        OSError: when the disk has no room.
    """

    def __init__(
        self,
        network: Network,
        scene: Scene,
        scale: Scale,
        windows: Windows,
        folder: Path,
        averaging: Averaging | None = None,
    ) -> None:
        self.network, self.scene, self.scale, self.windows = network, scene, scale, windows
        self.folder, self.averaging = folder, averaging or Averaging()
        self.size = scene.size
        self.weights = sum(t.nbytes for t in network.parameters()) if isinstance(network, FCN) else 0
        self.room = windows.memory - PROCESS - self.weights
        if self.room < windows.memory // 20:
            least = (PROCESS + self.weights) / 0.9
            raise InputError(f"memory={windows.memory / 1e9:g}: this network takes at least {least / 1e9:.1f} GB")
        whole = scale.factor is None
        by_rows = not whole and isinstance(network, FCN) and streams(network) and windows.overlap is None
        self._begin(whole or by_rows)
        self._source: _Shrunk | _ByRows | _ByTiles
        self._source = _Shrunk(self) if whole else _ByRows(self) if by_rows else _ByTiles(self)
        self.mask = _mapped(folder / "mask", self.size, np.dtype(np.uint8))

    @property
    def method(self) -> str:
        """How it is computed, in words."""
        return self._source.method

    def _begin(self, plain: bool) -> None:
        """Keep what an equal mosaic has left, and nothing else; without tiles memory changes nothing."""
        key = json.dumps(self._key() | {"windows": None if plain else asdict(self.windows)}, sort_keys=True)
        note = self.folder / "key.json"
        if not note.is_file() or note.read_text() != key:
            shutil.rmtree(self.folder, ignore_errors=True)
            with replacing(note) as temporary:
                temporary.write_text(key)

    def _key(self) -> dict[str, Any]:
        stat = self.scene.path.stat()
        return {
            "image": [str(self.scene.path.resolve()), stat.st_size, stat.st_mtime_ns, *self.size],
            "network": [self.network.spec.to_dict(), checksum(self.network), type(self.network).__name__],
            "precision": str(getattr(self.network, "autocast", None)),
            "scale": str(self.scale.factor),
            "views": asdict(self.averaging) if self.scale.factor is None else None,
        }

    def compute(self, advance: Advance, given: Callable[[Part], None] | None = None) -> None:
        """Fill the mask.

        Args:
            advance: is told the share of the work, from 0 to 1, that has been done anew, or was already.
            given: gets every part's logits, over the temperature or of all views; the whole image's, so that the
                parts that were computed before are computed again where they are not kept.

        Raises:
            InputError: where the image is damaged.
            OSError: when the disk is full; what is done is kept.
        """
        note = self.folder / "rows.json"
        done = json.loads(note.read_text()) if note.is_file() and given is None else 0
        self._source.prepare(advance)
        advance(self._source.share(done))
        told, rows = time.monotonic(), 0
        for top, left, logits in self._source.parts(done):
            height, width = logits.shape[-2:]
            if given is not None:
                given((top, left, logits / self._source.temperature))
            self.mask[top : top + height, left : left + width] = self._classes(logits, top, left)
            if left + width == self.size[1]:
                advance(self._source.share(height))
                rows += height
                if time.monotonic() - told > SAVE_EVERY or rows * width > KEPT:
                    _flush(self.mask)
                    _write(note, json.dumps(top + height).encode())
                    told, rows = time.monotonic(), 0
        self.rest()

    def rest(self) -> None:
        """Give back the memory that the mask takes until it is looked at again, and what was needed to compute it."""
        _flush(self.mask)
        _trim()

    def _classes(self, logits: Tensor, top: int, left: int) -> np.ndarray:
        mask = likeliest(logits)[0].to(torch.uint8).cpu().numpy()
        known = self.scene.known(top, top + mask.shape[0])
        if known is not None:
            mask[~known[:, left : left + mask.shape[1]]] = IGNORE_INDEX
        return mask

    def values(self, start: int, stop: int) -> np.ndarray:
        """Rows of the scene, in the values that the network takes."""
        return scale_values(self.scene.rows(start, stop), self.network.spec.scaling)

    def remove(self) -> None:
        """Forget what is done."""
        del self.mask
        self._source.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class _Shrunk:
    """The whole image at the size of the training's; then the mask from its logits."""

    method = "at the size of the training's images"
    temperature = 1.0
    """Their views have it already."""

    def __init__(self, mosaic: Mosaic) -> None:
        self.mosaic = mosaic
        self.seen = mosaic.network.spec.shown_size(mosaic.size)

    def prepare(self, advance: Advance) -> None:
        height = self.mosaic.size[0]
        image = shrunk(self.mosaic.values, self.mosaic.size, self.seen, lambda rows: advance(0.8 * rows / height))
        network, (rows, columns) = self.mosaic.network, self.seen
        framed = padded_image(image, network.spec.input_size, network.spec.resize)
        batch = torch.from_numpy(framed.transpose(2, 0, 1).copy())[None].to(network.device)
        with torch.inference_mode():
            self.logits = averaged_logits(network, batch, self.mosaic.averaging)[..., :rows, :columns]

    def parts(self, done: int) -> Iterator[Part]:
        height, width = self.mosaic.size
        for start, stop in _bands(self.mosaic, done):
            part = resampled_rows(lambda a, b: self.logits[..., a:b, :], self.seen, (height, width), start, stop)
            yield start, 0, part

    def share(self, rows: int) -> float:
        return 0.2 * rows / self.mosaic.size[0]

    def close(self) -> None:
        """Nothing is kept."""


class _ByRows:
    """The scores of the whole image first, each row once; then the mask from them."""

    method = "row by row"

    def __init__(self, mosaic: Mosaic) -> None:
        self.mosaic, self.temperature = mosaic, mosaic.averaging.temperature
        assert isinstance(mosaic.network, FCN)
        assert mosaic.scale.factor is not None
        self.factor = mosaic.scale.factor
        self.seen, self.covered = mosaic.scale.seen(mosaic.size), mosaic.scale.covered(mosaic.size)
        self.maps: list[np.memmap] = []
        self.stream = RowStream(mosaic.network, self.seen, self._allocate)
        unit = self.factor.numerator
        rows = int(0.6 * mosaic.room / self.stream.bytes_per_row) // unit * unit
        if rows < unit:
            least = mosaic.windows.memory - mosaic.room + self.stream.bytes_per_row * unit / 0.6
            raise InputError(
                f"memory={mosaic.windows.memory / 1e9:g}: an image {mosaic.size[1]} pixels wide takes at least "
                f"{least / 1e9:.1f} GB with this network"
            )
        self.strip = min(rows, -(-256 // unit) * unit)
        self.state = mosaic.folder / "state.pt"
        if self.state.is_file():
            self.stream.restore(read_torch(self.state, mmap=True))

    def _allocate(self, name: str, shape: tuple[int, ...]) -> Tensor:
        self.maps.append(_mapped(self.mosaic.folder / name, shape, np.dtype(np.float32)))
        return torch.from_numpy(self.maps[-1])

    def prepare(self, advance: Advance) -> None:
        height, saved = self.seen[0], time.monotonic()
        advance(0.9 * self.stream.rows / height)
        while self.stream.rows < height:
            stop = min(self.stream.rows + self.strip, height)
            strip = self._strip(self.stream.rows, stop).transpose(2, 0, 1)[None]
            self.stream.push(torch.from_numpy(strip).to(self.mosaic.network.device))
            advance(0.9 * strip.shape[-2] / height)
            if time.monotonic() - saved > SAVE_EVERY or stop == height:
                self._save()
                saved = time.monotonic()

    def _strip(self, start: int, stop: int) -> np.ndarray:
        """(stop - start, w, C) rows as they are seen; those around them are read where values are interpolated."""
        p, q = self.factor.numerator, self.factor.denominator
        around = p if p > q else 0
        first, end = max(start - around, 0), min(stop + around, self.seen[0])
        top, bottom = first * q // p, end * q // p
        values = self.mosaic.values(top, min(bottom, self.mosaic.size[0]))
        beyond = (bottom - top - values.shape[0], self.covered[1] - values.shape[1])
        if any(beyond):
            values = np.pad(values, ((0, beyond[0]), (0, beyond[1]), (0, 0)), mode="edge")
        return self.mosaic.scale.applied(values, None)[start - first : stop - first]

    def _save(self) -> None:
        for scores in self.maps:
            _flush(scores)
        content = io.BytesIO()
        torch.save(self.stream.state(), content)
        _write(self.state, content.getvalue())

    def parts(self, done: int) -> Iterator[Part]:
        width = self.mosaic.size[1]
        for start, stop in _bands(self.mosaic, done):
            if self.factor == 1:
                logits = self.stream.logits(start, stop)
            else:
                logits = resampled_rows(self.stream.logits, self.seen, self.covered, start, stop)
            yield start, 0, logits[..., :width]
            for scores in self.maps:
                _forget(scores)

    def share(self, rows: int) -> float:
        return 0.1 * rows / self.mosaic.size[0]

    def close(self) -> None:
        self.stream.scores.clear()
        self.maps.clear()


class _ByTiles:
    """Tiles, computed as they are asked for."""

    def __init__(self, mosaic: Mosaic) -> None:
        self.mosaic, windows = mosaic, mosaic.windows
        self.temperature = mosaic.averaging.temperature
        network, scale = mosaic.network, mosaic.scale
        if scale.factor != 1:
            network = Rescaled(network, scale)
        kept = 8 * network.spec.num_classes * mosaic.size[1] if windows.overlap is not None else 0  # bytes per row
        fits = int((0.8 * mosaic.room / windows.batch / TILE_BYTES) ** 0.5)
        while fits > 64 and windows.batch * TILE_BYTES * fits**2 + kept * fits > 0.8 * mosaic.room:
            fits -= 32
        self.tiles = Tiles(network, mosaic.size, windows.tile or fits, windows.overlap, windows.batch)
        exact = "exact tiles" if windows.overlap is None else f"tiles that overlap by {windows.overlap} pixels"
        self.method = f"in {exact} of {self.tiles.tile}, {self.tiles.computed:.2f} pixels computed for each"

    def prepare(self, advance: Advance) -> None:
        """Nothing is computed before it is asked for."""

    def parts(self, done: int) -> Iterator[Part]:
        return self.tiles.parts(self.mosaic.values, done)

    def share(self, rows: int) -> float:
        return rows / self.mosaic.size[0]

    def close(self) -> None:
        """Nothing is kept."""


def _bands(mosaic: Mosaic, done: int) -> Iterator[tuple[int, int]]:
    """Rows, from and up to, whose logits are computed at once."""
    height, width = mosaic.size
    rows = max(int(0.1 * mosaic.room / (4 * mosaic.network.spec.num_classes * width)), 1)
    for start in range(done, height, rows):
        yield start, min(start + rows, height)


def checksum(network: Network) -> int:
    """Of a network's weights; of its file's, where it was exported."""
    if not isinstance(network, FCN):
        return int(getattr(network, "checksum", 0))
    total = 0
    for tensor in network.state_dict().values():
        total = zlib.crc32(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy(), total)
    return total


def _mapped(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> np.memmap:
    """An array in a file, as it was left or of zeros, whose room on the disk is taken at once."""
    size = int(np.prod(shape)) * dtype.itemsize
    if not path.is_file() or path.stat().st_size != size:
        try:
            with open(path, "wb") as file:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, size)  # else a full disk would end the process as it writes
                else:
                    file.truncate(size)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error
    return np.memmap(path, dtype, "r+", shape=shape)


def _flush(array: np.memmap) -> None:
    """Write an array to its file, and give the memory back."""
    array.flush()
    _forget(array)


def _forget(array: np.memmap) -> None:
    """Give back the memory of an array that stands in its file as it is."""
    pages: mmap.mmap = array._mmap  # type: ignore[attr-defined]
    if hasattr(mmap, "MADV_DONTNEED"):
        pages.madvise(mmap.MADV_DONTNEED)


def _trim() -> None:
    """Give back to the system what the C library keeps of freed memory, where it is the GNU one."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(content)
