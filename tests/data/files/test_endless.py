"""Named pipes and devices, at which a reader would wait or read without end, are refused wherever a file is read."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fcnseg.classes import label_space_from_file
from fcnseg.data import PairedFiles
from fcnseg.data.datasets.described import Described
from fcnseg.data.datasets.layout import read_layout
from fcnseg.data.datasets.synthia import read_text
from fcnseg.data.datasets.unlabelled import Unlabelled
from fcnseg.data.files.images import image_size, read_image, read_label
from fcnseg.data.files.listing import read_names
from fcnseg.data.files.matlab import read_matlab
from fcnseg.data.files.volumes import open_volume
from fcnseg.data.files.windows import image_window
from fcnseg.labels import STREET11
from tests.data.refusals import complaint

READERS: dict[str, Callable[[Path], Any]] = {
    "x.png": read_image,
    "label.png": read_label,
    "size.tif": image_size,
    "window.tif": lambda path: image_window(path, 3, ((0, 1), (0, 1))),
    "pairs.csv": lambda path: PairedFiles(path, STREET11),
    "dataset.yaml": Described,
    "layout.yaml": read_layout,
    "images.txt": lambda path: Unlabelled(path, STREET11),
    "classes.txt": label_space_from_file,
    "names.txt": read_names,
    "label.txt": read_text,
    "label.mat": lambda path: read_matlab(path, lambda content: content["x"], "a label"),
    "scan.nii": open_volume,
    "scan.dcm": open_volume,
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
@pytest.mark.parametrize("name", READERS)
def test_what_is_no_file_is_refused(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    (tmp_path / "device").mkdir()
    (tmp_path / "device" / name).symlink_to("/dev/zero")
    for path in (tmp_path / name, tmp_path / "device" / name):
        message = complaint(lambda path=path: READERS[name](path))
        assert str(path) in message
        assert "neither a file nor a folder" in message or "no such file" in message
