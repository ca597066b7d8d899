"""Writing files that appear whole or not at all."""

import ctypes
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path | str, durable: bool = False) -> Iterator[Path]:
    """Give a temporary name beside `path`, with its suffix, that becomes `path` if the block ends well.

    A job that is killed or fails while it writes, on a full disk for instance, leaves the old file, or
    none: never half a file. Parent folders are created.

    Args:
        path: of the file.
        durable: whether the same holds for a machine that loses its power: the file is on the disk before it takes the
            place of the old one, which takes as long as the disk does.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
    try:
        yield temporary
        if durable:
            write_through(temporary)
        if path.is_dir():
            remove(exchange(temporary, path))
        else:
            os.replace(temporary, path)
        if durable and os.name == "posix":
            write_through(path.parent)
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(temporary)):
            error.filename = str(path)  # the name that the user knows
        raise
    finally:
        temporary.unlink(missing_ok=True)


def exchange(new: Path, path: Path) -> Path:
    """Put a file or folder in the place of another one; returns where the other one is now.

    Where the system cannot exchange two names in one step, as over NFS, `path` is not there for a moment.
    """
    if _exchanged(new, path):
        return new
    aside = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
    path.rename(aside)
    new.rename(path)
    return aside


def _exchanged(one: Path, other: Path) -> bool:
    """Whether Linux has let two names change places, for which Python has no function."""
    try:
        rename = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    here, both = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(rename(here, os.fsencode(one.absolute()), here, os.fsencode(other.absolute()), both) == 0)


def remove(path: Path) -> None:
    """Delete a file or a folder with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_through(path: Path) -> None:
    """Have the system write what it still holds of a file, or of a folder's names."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
