"""What datasets are known by: the content of their files, which is read once on each host, and not their dates."""

import os
import time
from pathlib import Path

import numpy as np
import pytest

from fcnseg.data import CamVid
from fcnseg.data.files.path_list import PathList
from fcnseg.data.storage import fingerprint as module
from fcnseg.data.storage.cache import DiskCached
from fcnseg.data.storage.fingerprint import checksums, identity


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are read for their checksums, as they are."""
    files: list[str] = []
    checksum = module._checksum

    def told(path: str) -> int:
        files.append(path)
        return checksum(path)

    monkeypatch.setattr(module, "_checksum", told)
    return files


def written_long_ago(root: Path) -> None:
    """Let the changes of all files lie behind what is too recent to be remembered: the times that none can set too."""
    newest = max(file.stat().st_ctime_ns for file in root.rglob("*"))
    while time.time_ns() - module.RECENT <= newest:
        time.sleep(0.01)


def test_copies_with_other_dates_are_the_same_dataset(
    tmp_path: Path, camvid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two hosts with a home in common: the second one finds the first one's cache, and leaves it as it is."""
    monkeypatch.setattr(module, "HOST", "one")
    first = DiskCached(CamVid(camvid), tmp_path / "cache")
    (file,) = (tmp_path / "cache").glob("*/samples.bin")
    written = file.stat()
    for number, path in enumerate(camvid.rglob("*.png")):
        os.utime(path, (1e9 + number, 1e9 + number))
    monkeypatch.setattr(module, "HOST", "two")
    second = DiskCached(CamVid(camvid), tmp_path / "cache")
    assert (second.path, second.state) == (first.path, first.state)
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == (written.st_mtime_ns, written.st_ino)
    assert sorted(path.name for path in file.parent.glob("*.npy")) == ["files-one.npy", "files-two.npy"]


def test_only_what_has_changed_is_read_again(
    tmp_path: Path, camvid: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RECENT", 50_000_000)
    written_long_ago(camvid)
    before = identity(CamVid(camvid), tmp_path)
    assert len(read) == 16
    assert identity(CamVid(camvid), tmp_path) == before
    assert len(read) == 16, "nothing was read"
    file = sorted((camvid / "train").iterdir())[3]
    stat, content = file.stat(), file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    changed = identity(CamVid(camvid), tmp_path)
    assert read[16:] == [str(file)]
    assert changed[0] == before[0]
    assert changed[1] != before[1]
    file.write_bytes(content)
    assert identity(CamVid(camvid), tmp_path) == before


def test_what_changed_just_before_is_read_the_next_time_too(tmp_path: Path, read: list[str]) -> None:
    """A later change within the same tick of the clock would leave the same times."""
    (tmp_path / "new.png").write_bytes(b"new")
    for _ in range(2):
        checksums([PathList([tmp_path / "new.png"])], tmp_path / "index.npy")
    assert len(read) == 2


@pytest.mark.parametrize("damage", [b"", b"damaged", None])
def test_an_index_that_is_damaged_or_of_other_files_is_made_anew(tmp_path: Path, damage: bytes | None) -> None:
    index = tmp_path / "index.npy"
    for name in "ab":
        (tmp_path / name).write_bytes(name.encode())
    both = PathList([tmp_path / "a", tmp_path / "b"])
    expected = checksums([both], tmp_path / "other.npy")
    if damage is None:
        checksums([PathList([tmp_path / "b"])], index)
    else:
        index.write_bytes(damage)
    assert np.array_equal(checksums([both], index), expected)
    assert expected[0] == int("ca978112ca1bbdca", 16), "sha256sum begins so"


def test_where_nothing_can_be_kept_files_are_read_each_time(tmp_path: Path, camvid: Path) -> None:
    expected = identity(CamVid(camvid), tmp_path / "cache")
    (tmp_path / "file").touch()
    assert identity(CamVid(camvid), tmp_path / "file") == expected
