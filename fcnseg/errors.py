"""The one exception that means: the input is at fault, not the program; and the paths that nothing can be read from."""

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

GONE = frozenset(
    number
    for name in ("ENOTCONN", "ESTALE", "EIO", "ENODEV", "ENXIO", "EREMOTEIO")
    if (number := getattr(errno, name, None)) is not None
)
"""What the system says of a disk, or of a server's file system, that fails or has gone."""


class InputError(ValueError):
    """Bad input from the user: a file, a value or a name. Its message is one readable line.

    The command line prints it without a traceback and exits with code 2. What a file gives to be quoted may have any
    length; a message ends after `MOST` letters.
    """

    MOST = 1000

    def __init__(self, message: object = "") -> None:
        text = str(message)
        super().__init__(text if len(text) <= self.MOST else f"{text[: self.MOST]}...")


def refuse_endless(path: Path) -> None:
    """Refuse a named pipe, a socket or a device, which would be waited for or read without end.

    Raises:
        InputError: naming it.
    """
    if not os.path.isfile(path) and os.path.exists(path) and not os.path.isdir(path):  # of names too long as well
        raise InputError(f"{path}: neither a file nor a folder; expected a file")


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """The exception, the one that it stems from, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def mistake(error: BaseException) -> str | None:
    """The user's mistake from which an exception stems, as one line; None where there is none.

    Libraries wrap our exceptions in their own, and data workers in the text of a traceback.
    """
    for cause in causes(error):
        if isinstance(cause, InputError):
            text = str(cause)
            return text.strip().splitlines()[-1].split("InputError: ", 1)[-1] if "Traceback" in text else text
    return None


def vanished(error: OSError, otherwise: Path | str = "output") -> str | None:
    """One line on a folder or a file system that is gone, by the error of whoever met it; None for other errors.

    Args:
        error: of the system.
        otherwise: what is named where the error names no file.
    """
    named = error.filename if isinstance(error.filename, str | Path) else None
    if error.errno in GONE and (named or error.errno != errno.ENOTCONN):  # without a name it may be of a socket
        return f"{named or otherwise}: {error.strerror}; the disk or the file system that it is on has failed"
    if error.errno == errno.ENOENT and named and (folder := missing_folder(Path(named))):
        return f"{named}: no such file, and no folder {folder}"
    return None


def missing_folder(path: Path) -> Path | None:
    """The uppermost of a file's folders that is not there."""
    missing = None
    for folder in path.parents:
        with suppress(OSError):  # as of a file system that is gone
            if folder.exists():
                break
        missing = folder
    return missing
