"""Folders on a disk or in an object store, any that fsspec knows, and files of the latter kept at hand on a disk."""

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
from filelock import FileLock
from fsspec.implementations.local import LocalFileSystem

from fcnseg.atomic import replacing
from fcnseg.errors import InputError

try:
    import fcntl
except ImportError:  # Windows, which removes no file that is open
    fcntl = None  # type: ignore[assignment]


def is_remote(folder: str | Path) -> bool:
    """Whether a folder is a URL, such as s3://bucket/folder."""
    return "://" in str(folder)


def within(folder: str | Path, *names: str) -> str | Path:
    """A file or folder of a folder: a URL of a URL, which `Path` would spoil, and a path of a path."""
    return "/".join((str(folder).rstrip("/"), *names)) if is_remote(folder) else Path(folder, *names)


def read_file(folder: str | Path, name: str) -> bytes:
    """What a small file holds.

    Raises:
        FileNotFoundError: when there is no such file, folder or bucket.
        InputError: when the store cannot be reached, or refuses.
    """
    with _naming(folder):
        files, path = _open(folder)
        return files.cat_file(f"{path}/{name}")


def file_sizes(folder: str | Path) -> dict[str, int]:
    """The files of a folder by name, in bytes.

    Raises:
        InputError: as `read_file`.
    """
    with _naming(folder):
        files, path = _open(folder)
        files.invalidate_cache(path)
        return {str(entry["name"]).rsplit("/", 1)[-1]: int(entry["size"]) for entry in files.ls(path, detail=True)}


def _open(folder: str | Path) -> tuple[Any, str]:
    """A file system, which is not to be taken along to another process, and the folder's path there."""
    if not is_remote(folder):
        return LocalFileSystem(), str(folder)
    files, path = fsspec.core.url_to_fs(str(folder))
    return files, str(path).rstrip("/")


@contextmanager
def _naming(folder: str | Path) -> Iterator[None]:
    """Name the folder in whatever the libraries of an object store raise."""
    try:
        yield
    except ImportError as error:
        raise InputError(f"{folder}: {error}; S3 comes with pip install 'fcnseg[s3]'") from error
    except (InputError, FileNotFoundError):
        raise
    except Exception as error:
        if not is_remote(folder) or getattr(error, "errno", None) == errno.ENOSPC:
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        hint = "; see AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ..." if str(folder).startswith("s3") else ""
        raise InputError(f"{folder}: cannot be read ({reason}){hint}") from error


class Fetched:
    """Files of a remote folder, fetched when they are asked for into a local one that processes and runs share.

    Those that were asked for longest ago make room for others. The last one of each process stays.

    Args:
        url: of the remote folder.
        sizes: of its files, in bytes, by name.
        folder: the local one. Its neighbours, of other remote folders, share the limit.
        limit: how many GB (10^9 bytes) they may take together, beside what processes have open.
    """

    def __init__(self, url: str, sizes: Mapping[str, int], folder: Path, limit: float) -> None:
        self.url, self.sizes, self.folder, self.limit = url, dict(sizes), folder, limit
        folder.mkdir(parents=True, exist_ok=True)
        self._held: tuple[str, BinaryIO] | None = None

    def hold(self, name: str) -> None:
        """Have a file in the local folder until another one is asked for.

        Raises:
            InputError: when it cannot be fetched, or is larger than the limit.
        """
        if self._held is not None and self._held[0] == name:
            return
        self.release()
        path = self.folder / name
        while (file := _kept(path, self.sizes[name])) is None:
            self._fetch(path)
        os.utime(file.fileno())
        self._held = name, file

    def release(self) -> None:
        if self._held is not None:
            self._held[1].close()
            self._held = None

    def drop(self, name: str) -> None:
        """Fetch a file anew when it is asked for again."""
        self.release()
        (self.folder / name).unlink(missing_ok=True)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_held": None}

    def _fetch(self, path: Path) -> None:
        with FileLock(path.with_name(f".{path.name}.lock")):  # of several processes one fetches, the others wait
            if path.exists():
                return
            size = self.sizes[path.name]
            make_room(self.folder.parent, size, self.limit)
            with replacing(path) as temporary, temporary.open("wb") as file, _naming(self.url):
                _share(file)
                files, folder = _open(self.url)
                try:
                    files.get_file(f"{folder}/{path.name}", str(temporary))
                except FileNotFoundError:
                    raise InputError(f"{self.url}/{path.name}: missing; expected {size} bytes") from None
                if (found := temporary.stat().st_size) != size:
                    raise InputError(f"{self.url}/{path.name}: {found} bytes; expected {size} bytes")


def make_room(root: Path, size: int, limit: float) -> None:
    """Remove the files of longest ago, but no open ones, from the folders of `root` until so many bytes fit in.

    Raises:
        InputError: when not even an empty cache has room.
    """
    if size > limit * 1e9:
        raise InputError(f"data.cache_limit={limit:g} GB: a shard of {size / 1e9:.3g} GB has no room in {root}")
    with FileLock(root / "lock"):
        found = sorted(_ages_and_sizes(root))
        used = sum(taken for _, taken, _ in found)
        for _, taken, path in found:
            if used + size <= limit * 1e9:
                break
            if _removed(path):
                used -= taken


def _ages_and_sizes(root: Path) -> Iterator[tuple[int, int, Path]]:
    for path in root.glob("*/*.bin"):
        with suppress(FileNotFoundError):  # a temporary name that has become the file's
            state = path.stat()
            yield state.st_mtime_ns, state.st_size, path


def _kept(path: Path, size: int) -> BinaryIO | None:
    """The file, open and kept from being removed; None when there is none of that size."""
    with suppress(FileNotFoundError):
        file = path.open("rb")
        _share(file)
        ours = os.fstat(file.fileno())
        if ours.st_size != size:
            path.unlink()
        elif os.path.samestat(ours, path.stat()):  # it was not removed in the meantime
            return file
        file.close()
    return None


def _share(file: BinaryIO) -> None:
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_SH)


def _removed(path: Path) -> bool:
    """Whether a file, which nobody holds, is removed."""
    with suppress(OSError):
        with path.open("rb") as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        return True
    return False
