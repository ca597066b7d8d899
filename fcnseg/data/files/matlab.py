"""MATLAB files (version 5) through SciPy, whose reader crashes of some that are cut off: these are refused before."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fcnseg.data.files.values import max_bytes, require_bytes
from fcnseg.errors import InputError, refuse_endless

DAMAGE = (OSError, ValueError, TypeError, KeyError, IndexError, NotImplementedError, zlib.error)
"""What scipy raises for files that are cut off, or are not what they should be."""

PIECE = 2**20  # bytes that are unpacked at once


def read_matlab(path: Path, take: Callable[[dict[str, Any]], np.ndarray], what: str) -> np.ndarray:
    """The values that `take` takes of a file's variables.

    Args:
        path: of the file.
        take: fails by any of `DAMAGE` where they are not there.
        what: the file should be, for the message.

    Raises:
        InputError: naming the file, when it is missing, damaged, too large, or something else.
    """
    import scipy.io  # slow to import, and only needed here

    refuse_endless(path)
    try:
        require_bytes(path, unpacked_size(path, max_bytes()), what)
        return take(scipy.io.loadmat(path))
    except InputError:
        raise
    except (*DAMAGE, MemoryError, scipy.io.matlab.MatReadError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{path}: cannot be read as {what} ({reason})") from error


def unpacked_size(path: Path, most: int) -> int:
    """The bytes that a MATLAB file (version 5) holds when unpacked, as far as they are no more than `most`.

    It is a head of 128 bytes and elements of a type and a length, of which those of type 15 are zlib streams. They are
    unpacked piece by piece and thrown away, which finds damage by their checksums: SciPy's reader may crash of it.

    Raises:
        OSError, ValueError, zlib.error: when the file is damaged or cannot be read so.
    """
    total = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(128)
        order = "<" if head[126:128] == b"IM" else ">"
        while total <= most and (tag := file.read(8)):
            kind, length = struct.unpack(f"{order}II", tag.ljust(8, b"\xff"))
            if length > path.stat().st_size - file.tell():
                raise ValueError("it ends too early")
            if kind != 15:
                file.seek(length, 1)
                continue
            unpacker, left = zlib.decompressobj(), length
            while total <= most and left > 0 and (packed := file.read(min(left, PIECE))):
                left -= len(packed)
                while packed and total <= most:
                    total += len(unpacker.decompress(packed, PIECE))
                    packed = unpacker.unconsumed_tail
            if total <= most and not unpacker.eof:
                raise ValueError("it ends too early")
    return total
