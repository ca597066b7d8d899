"""Finding files: which and in what order, against pathlib; and what a long list costs."""

import os
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fcnseg.data import PairedFolder
from fcnseg.data.files.listing import IMAGE_SUFFIXES, find_files, labels_of, list_images
from fcnseg.labels import STREET11
from tests.data.refusals import complaint


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_files_come_in_the_order_of_their_paths(tmp_path: Path) -> None:
    """Folders stand among the files of the folder that they are in."""
    touch(tmp_path, "b/x.png", "b.png", "b-c/y.JPG", "b/a/z.tif", "a.b.png", "a.jpg", "c/d/e/f.png", "B.png", "ö/ü.png")
    touch(tmp_path, "b/.x.png", "__MACOSX/x.png", "b/notes.txt", "deep.png/inside.png")
    found = list_images(tmp_path, recursive=True)
    images = [p for p in tmp_path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()]
    expected = sorted(p for p in images if p.name != ".x.png" and p.parent.name != "__MACOSX")
    assert list(found) == expected
    assert len(expected) == 10
    assert [p.name for p in list_images(tmp_path)] == ["B.png", "a.b.png", "a.jpg", "b.png"]


def test_links_to_files_count_and_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    touch(tmp_path, "files/x.png", "files/deep/y.png")
    (tmp_path / "files" / "again").symlink_to(tmp_path / "files", target_is_directory=True)
    (tmp_path / "files" / "folder.png").symlink_to(tmp_path / "files" / "deep", target_is_directory=True)
    (tmp_path / "files" / "z.png").symlink_to(tmp_path / "files" / "x.png")
    found = list_images(tmp_path / "files", recursive=True)
    assert [str(p.relative_to(tmp_path / "files")) for p in found] == ["deep/y.png", "x.png", "z.png"]


def test_files_of_subfolders_are_found_by_a_pattern(tmp_path: Path) -> None:
    touch(tmp_path, "b/1_left.png", "b/1_right.png", "a/2_left.png", "3_left.png", ".c/4_left.png")
    assert [p.name for p in find_files(tmp_path, "*/*_left.png")] == ["2_left.png", "1_left.png"]
    assert complaint(lambda: find_files(tmp_path, "*/*_up.png")) == f"{tmp_path}: no files named */*_up.png"


def test_labels_that_are_missing_are_counted(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.png", "images/b.png", "images/c.png", "labels/b_L.png")
    images = list_images(tmp_path / "images")
    assert complaint(lambda: labels_of(images, lambda _: tmp_path / "labels", "{}_L.png".format)) == (
        f"{tmp_path}/labels/a_L.png: no such label file (2 of 3 labels are missing)"
    )


def test_pairs_are_found_folder_by_folder(tmp_path: Path) -> None:
    """Also where files and folders take turns, and where another folder's label has the same name."""
    names = ["a", "b/a", "b/c/a", "b/d", "c", "c.d/a", "d"]
    touch(tmp_path / "images", *(f"{name}.jpg" for name in names))
    touch(tmp_path / "labels", *(f"{name}.png" for name in names), "e/a.png", "b/a.txt")
    pairs = PairedFolder(tmp_path / "images", tmp_path / "labels", STREET11, recursive=True)
    order = [p.with_suffix("") for p in sorted(Path(f"{name}.jpg") for name in names)]
    assert [str(p.relative_to(tmp_path / "images")) for p in pairs.images] == [f"{p}.jpg" for p in order]
    assert [str(p.relative_to(tmp_path / "labels")) for p in pairs.labels] == [f"{p}.png" for p in order]
    assert [pairs.name(i) for i in range(len(pairs))] == [str(p) for p in order]
    touch(tmp_path / "images", "c.png")
    line = complaint(lambda: PairedFolder(tmp_path / "images", tmp_path / "labels", STREET11, recursive=True))
    assert line == f"{tmp_path}/images/c.png: c.jpg has the same name but for its ending; pairs would be ambiguous"
    (tmp_path / "images" / "c.png").rename(tmp_path / "labels" / "c.tif")
    line = complaint(lambda: PairedFolder(tmp_path / "images", tmp_path / "labels", STREET11, recursive=True))
    assert line == f"{tmp_path}/labels/c.tif: c.png has the same name but for its ending; pairs would be ambiguous"


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8,000 pairs in 40 folders."""
    root = tmp_path_factory.mktemp("many")
    for kind, ending in (("images", "jpg"), ("labels", "png")):
        for folder in range(40):
            (root / kind / f"drive_{folder:04d}").mkdir(parents=True)
            for frame in range(200):
                os.close(os.open(root / kind / f"drive_{folder:04d}" / f"frame_{frame:08d}.{ending}", os.O_CREAT))
    return root


def test_a_pair_costs_few_bytes(many: Path) -> None:
    """At the peak and afterwards; paths as objects took 1,200 and 230 (see `scripts/million_pairs.py`)."""
    tracemalloc.start()
    pairs = PairedFolder(many / "images", many / "labels", STREET11, recursive=True)
    stays, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(pairs) == 8000
    assert stays / 8000 < 130
    assert peak / 8000 < 200


def told(asked: list[str], call: Callable[..., Any], path: Any, *rest: Any, **options: Any) -> Any:
    asked.append(str(path))
    return call(path, *rest, **options)


def test_no_file_is_looked_at_while_files_are_listed(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a network drive each look is a question to the server; those asked are about folders."""
    asked: list[str] = []
    with monkeypatch.context() as patch:
        for name in ("stat", "lstat"):
            patch.setattr(os, name, partial(told, asked, getattr(os, name)))
        PairedFolder(many / "images", many / "labels", STREET11, recursive=True)
    assert asked
    assert not [path for path in asked if path.endswith((".jpg", ".png"))]
