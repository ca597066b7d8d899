"""Files of torch.save, looked through before torch reads them.

torch's restricted unpickler executes no code, but it makes whatever a few bytes ask for: `bytearray(10**10)`, storages
larger than their file, a record that unpacks to a thousand times its size, a list of lists of one list. So the file is
walked through first, in the steps in which it would be read and without making anything of it: its archive must take
no more unpacked than on the disk, its pickle must be short, also with all that it refers to written out, call nothing
but what makes tensors and plain values, and ask for no more values than there are.
"""

import io
import os
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import ZipFile

import numpy as np
import torch

from fcnseg.errors import InputError
from fcnseg.models.pickle_steps import UnsoundError, Walk

PICKLE = 2**24
"""A pickle's most bytes. That of a network of 2000 tensors with Adam's state has about 0.6 MB."""

LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""How files begin that torch wrote before version 1.6, such as pytorch-fcn's and torchvision's."""


def read_torch(
    path: str | Path, what: str = "no weights that can be read without executing code", mmap: bool = False
) -> Any:
    """What torch.save wrote, on the CPU; tensors, plain values and numpy's numbers only.

    Args:
        path: of the file.
        what: to say of a file that cannot be read.
        mmap: leave tensors on the disk until they are needed, for files that nobody else writes.

    Raises:
        InputError: when the file is missing, damaged, needs code to be executed, or more memory than it has bytes.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        look_through(path)
        with torch.serialization.safe_globals(_NUMPY_NUMBERS):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except UnsoundError as error:
        raise InputError(f"{path}: {what}, or damaged ({error})") from error
    except Exception as error:  # a damaged file fails in torch's reader with almost any exception
        raise InputError(f"{path}: {what}, or damaged") from error


# pytorch-fcn's training checkpoints hold their best score as a numpy number; under its name before numpy 2, too.
_scalar = np.float64(0).__reduce__()[0]
_NUMPY_NUMBERS: list[Any] = [
    _scalar,
    (_scalar, "numpy.core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(name)) for name in ("float64", "float32", "int64")),
]


def look_through(path: Path) -> None:
    """Refuse a file that would take more memory or time than its size tells.

    Raises:
        UnsoundError: for such a file.
        Exception: of any kind, for a damaged one.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if file.read(4) == b"PK\x03\x04":
            _look_through_archive(file, size)
        else:
            file.seek(0)
            _look_through_legacy(file.read(PICKLE), size)


def _look_through_archive(file: BinaryIO, size: int) -> None:
    _require_plain_end(file, size)
    with ZipFile(file) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
        if len({name.lower() for name in sizes}) != len(archive.infolist()):
            raise UnsoundError("two files in its archive have one name")  # torch might read the other one
        if sum(sizes.values()) > size:
            raise UnsoundError("its archive takes more bytes unpacked than the file has")
        top = archive.namelist()[0].partition("/")[0]
        if sizes[f"{top}/data.pkl"] > PICKLE:
            raise UnsoundError(f"it describes its tensors in more than {PICKLE} bytes")
        pickled = archive.read(f"{top}/data.pkl")

    def require_values(key: str, length: int) -> None:
        if length > sizes[f"{top}/data/{key}"]:
            raise UnsoundError("it has fewer values than it says")

    Walk(require_values).through(io.BytesIO(pickled))


def _require_plain_end(file: BinaryIO, size: int) -> None:
    """Refuse an archive of which two readers could find two tables of contents."""
    file.seek(max(0, size - 98))
    end = file.read()
    locator, directory, comment = end[-42:-22], int.from_bytes(end[-6:-2], "little"), end[-2:]
    if locator[:4] == b"PK\x06\x07":  # of archives beyond 4 GB
        sound = int.from_bytes(locator[8:16], "little") == size - 98
        directory, length = (int.from_bytes(end[i : i + 8], "little") for i in (48, 40))
        at = size - 98
    else:
        sound, at, length = True, size - 22, int.from_bytes(end[-10:-6], "little")
    if not sound or end[-22:-18] != b"PK\x05\x06" or comment != b"\0\0" or directory + length != at:
        raise UnsoundError("its archive does not end as torch.save's do")


def _look_through_legacy(head: bytes, size: int) -> None:
    """Of a file that is five pickles, of which the fourth is the content, and then values."""
    if not head.startswith(LEGACY):
        raise ValueError("neither an archive nor torch's older format")
    left = size

    def require_values(_: str, length: int) -> None:
        nonlocal left
        left -= length
        if left < 0:
            raise UnsoundError("it has fewer values than it says")

    stream, walk = io.BytesIO(head), Walk(require_values)
    for _ in range(5):
        walk.through(stream)
