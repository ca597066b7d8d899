"""Memory of one process that others of its host find and map, and that is gone with the last of them."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from fcnseg.atomic import replacing

NAME = "fcnseg"


def can_share() -> bool:
    """Whether the system has files in memory, and other processes can open them (Linux)."""
    return hasattr(os, "memfd_create") and os.path.isdir("/proc/self/fd")


class SharedFile:
    """A file in memory (`memfd_create`): it has no name on any disk, and lasts while a process holds it.

    Others open it as `/proc/PID/fd/NUMBER`, of any process that does. Nothing has to be cleared up after a process
    that is killed, and the size of /dev/shm does not limit it.

    Args:
        path: of one that is there; by default a new and empty one, open for writing.

    Raises:
        OSError: when there is none.
    """

    def __init__(self, path: str | None = None) -> None:
        if path is not None and not os.readlink(path).startswith(f"/memfd:{NAME} "):
            raise FileNotFoundError(f"{path}: not a file in memory of {NAME}")  # another one has its number by now
        if path is None:
            number = os.memfd_create(NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        else:
            number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.file: BinaryIO = os.fdopen(number, "w+b" if path is None else "rb")

    @property
    def path(self) -> str:
        """Where other processes find it for as long as this one has it open."""
        return f"/proc/{os.getpid()}/fd/{self.file.fileno()}"

    def seal(self) -> None:
        """Let nobody write to it any more."""
        import fcntl  # which not every system has

        self.file.flush()
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
        fcntl.fcntl(self.file, fcntl.F_ADD_SEALS, seals)

    @classmethod
    def found(cls, holders: Path, fits: Callable[[str], Any]) -> "SharedFile | None":
        """The file of a process that is listed, lives and has one that fits, which is told by its path."""
        for path in _listed(holders):
            try:
                file = cls(path)
            except OSError:
                continue
            if fits(file.path) is not None:
                return file
        return None

    def tell(self, holders: Path) -> None:
        """Add this process to a list of those that have the file open, and drop from it those that are gone."""
        alive = [path for path in _listed(holders) if os.path.exists(path) and path != self.path]
        with replacing(holders) as temporary:
            temporary.write_text(json.dumps([*alive, self.path]))


def _listed(holders: Path) -> list[str]:
    try:
        return [str(path) for path in json.loads(holders.read_text())]
    except (OSError, ValueError, TypeError):
        return []
