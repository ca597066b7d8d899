"""Writing files that appear whole or not at all."""

import os
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
            _write_through(temporary)
        os.replace(temporary, path)
        if durable and os.name == "posix":
            _write_through(path.parent)
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(temporary)):
            error.filename = str(path)  # the name that the user knows
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _write_through(path: Path) -> None:
    """Have the system write what it still holds of a file, or of a folder's names."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
