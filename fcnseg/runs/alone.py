"""One training at a time in a folder: two would write over each other's checkpoints and curves."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from fcnseg.errors import InputError

RUNNING = ".running"
"""The file that a training holds a lock on; the lock ends with the process, however that ends."""

PATIENCE = 30.0
"""Seconds for one that was told to stop, and is writing its last checkpoint."""

POLL = 0.2  # seconds


@contextmanager
def alone_in(folder: Path, patience: float = PATIENCE) -> Iterator[None]:
    """Keep other trainings out of a folder for as long as this lasts.

    Where the system or the disk has no such locks (Windows, some network file systems) nothing is kept out.

    Args:
        folder: of the run; made where it is not there.
        patience: seconds to wait for another one to end.

    Raises:
        InputError: naming the process that trains there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / RUNNING
    file = _locked(path, patience)
    try:
        yield
    finally:
        if file is not None:
            with suppress(OSError):
                path.unlink()
            file.close()


def _locked(path: Path, patience: float) -> TextIO | None:
    """The file, locked; None where there are no locks."""
    try:
        import fcntl
    except ImportError:
        return None
    until = time.monotonic() + patience
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                file.seek(0)
                who = file.read().strip() or "another process"
                raise InputError(f"{path.parent}: {who} trains here; wait for it, or choose another folder") from None
            file.close()
            time.sleep(POLL)
        except OSError:  # a file system without locks
            file.close()
            return None
        else:
            if _is_same(file, path):  # and not one that its holder has just taken away
                with suppress(OSError):  # of a full disk: what follows says so
                    file.truncate(0)
                    file.write(f"process {os.getpid()} on {socket.gethostname()}")
                    file.flush()
                return file
            file.close()


def _is_same(file: TextIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
