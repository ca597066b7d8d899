"""Files appear whole or not at all."""

import errno
import os
from pathlib import Path

import pytest

from fcnseg import atomic
from fcnseg.atomic import exchange, remove, replacing


def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_text("old")

    def interrupted() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            assert path.read_text() == "old"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_names_the_file_and_not_its_temporary(tmp_path: Path) -> None:
    path = tmp_path / "new" / "picture.png"

    def full_disk() -> None:
        with replacing(path):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left") as caught:
        full_disk()
    assert caught.value.filename == str(path)


def test_a_durable_write_is_on_the_disk_before_it_takes_the_place_of_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Listens to what is asked of the system: the file, then its new name, then the folder that has it."""
    asked: list[tuple[str, Path]] = []
    fsync, replace = os.fsync, os.replace

    def heard_fsync(number: int) -> None:
        asked.append(("fsync", Path(os.readlink(f"/proc/self/fd/{number}"))))
        fsync(number)

    def heard_replace(old: Path, new: Path) -> None:
        asked.append(("replace", old))
        replace(old, new)

    monkeypatch.setattr(os, "fsync", heard_fsync)
    monkeypatch.setattr(os, "replace", heard_replace)
    with replacing(tmp_path / "a", durable=True) as temporary:
        temporary.write_text("new")
    assert asked == [("fsync", temporary), ("replace", temporary), ("fsync", tmp_path)]
    assert (tmp_path / "a").read_text() == "new"


@pytest.mark.parametrize("by_the_system", [True, False])
@pytest.mark.parametrize("folder", [True, False])
def test_a_file_and_a_folder_change_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_the_system: bool, folder: bool
) -> None:
    if not by_the_system:  # as over NFS
        monkeypatch.setattr(atomic, "_exchanged", lambda *_: False)
    new, path = tmp_path / "new", tmp_path / "path"
    for place, is_folder in ((new, folder), (path, not folder)):
        file = place / "content" if is_folder else place
        file.parent.mkdir(exist_ok=True)
        file.write_text(place.name)
    old = exchange(new, path)
    assert path.is_dir() == folder
    assert (path / "content" if folder else path).read_text() == "new"
    assert (old if folder else old / "content").read_text() == "path"
    remove(old)
    assert list(tmp_path.iterdir()) == [path]
