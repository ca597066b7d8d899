"""Only an index that `pack` has written is read: others can run code of their choice."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from litdata.streaming import Cache, StreamingDataset

from fcnseg.data import CityScenes, Packed
from fcnseg.data.storage.packing import pack
from fcnseg.data.storage.shard_index import SIZES
from tests.data.refusals import complaint


class Malicious:
    """Leaves a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable, tuple]:
        return Path.touch, (self.file,)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed") / "packed"
    pack({}, CityScenes(4, 0, "real", (48, 64)), folder)
    return folder / "val"


@pytest.fixture
def packed(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "packed"))


def change_index(folder: Path, change: Callable[[dict], None]) -> str:
    """Change the index, with a manifest that goes with it; gives its path, which refusals begin with."""
    index, manifest = (json.loads((folder / name).read_text()) for name in ("index.json", "dataset.json"))
    change(index)
    (folder / "index.json").write_text(json.dumps(index))
    for name in manifest["files"]:
        manifest["files"][name] = (folder / name).stat().st_size
    (folder / "dataset.json").write_text(json.dumps(manifest))
    return str(folder / "index.json")


def craft(folder: Path, mark: Path) -> None:
    """Put shards into a pack whose names are pickles."""
    for file in (*folder.glob("chunk-*"), folder / "index.json"):
        file.unlink()
    writer = Cache(str(folder), chunk_bytes=1 << 20)
    for index in range(4):
        image, mask = np.zeros((48, 64, 3), np.uint8), np.zeros((48, 64), np.uint8)
        writer[index] = {"image": image, "mask": mask, "name": Malicious(mark), "checksum": 0}
    writer.done()
    writer.merge()


def test_a_crafted_pickle_is_not_opened(packed: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    craft(packed, mark)
    path = change_index(packed, lambda index: None)
    assert complaint(lambda: Packed(packed)) == (
        f'{path}: data_format is ["numpy", "numpy", "pickle", "int"], which fcnseg data pack does not write; '
        "pack the data again"
    )
    assert not mark.exists()
    StreamingDataset(str(packed), batch_decode=0)[0]
    assert mark.exists(), "the crafted pickle does nothing"


def test_an_index_that_is_exchanged_after_it_was_looked_at_is_refused(packed: Path, tmp_path: Path) -> None:
    dataset = Packed(packed)
    craft(packed, tmp_path / "mark")
    assert "data_format" in complaint(lambda: dataset[0])
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data_format", ["numpy", "numpy", "graph:pickle", "int"]),
        ("data_format", ["tensor", "numpy", "str", "int"]),
        ("data_format", ["no_header_numpy:14", "no_header_numpy:14", "str", "int"]),
        ("data_format", ["numpy", "numpy", "file", "int"]),
        ("data_format", ["numpy", "numpy", "str"]),
        ("data_spec", json.dumps([1, {"type": "subprocess.Popen", "context": "[]", "children_spec": []}])),
        ("compression", "zstd"),
        ("compression_level", "batch"),
        ("encryption", {"algorithm": "fernet", "level": "sample"}),
        ("item_loader", "TokensLoader"),
        ("item_loader", None),
        ("types", {"name": "json"}),
        ("format", "mds"),
        ("temporal_schema", [1]),
    ],
)
def test_whatever_pack_does_not_write_is_refused(packed: Path, key: str, value: Any) -> None:
    path = change_index(packed, lambda index: index["config"].update({key: value}))
    found = complaint(lambda: Packed(packed))
    assert found.startswith(f"{path}: {key} is ")
    assert found.endswith("which fcnseg data pack does not write; pack the data again")


@pytest.mark.parametrize(
    "change",
    [
        lambda index: index["chunks"].pop(),
        lambda index: index["chunks"].append(index["chunks"][0]),
        lambda index: index["chunks"][0].update(filename="../packed/chunk-0-0.bin"),
        lambda index: index["chunks"][0].update(chunk_bytes=7),
        lambda index: index["chunks"][0].update(chunk_size=-4),
    ],
)
def test_other_shards_than_the_manifest_s_are_refused(packed: Path, change: Callable[[dict], None]) -> None:
    path = change_index(packed, change)
    assert complaint(lambda: Packed(packed)) == (
        f"{path}: lists other shards than {packed}/dataset.json; pack the data again"
    )


@pytest.mark.parametrize("change", [lambda index: index.pop("chunks"), lambda index: index.update(config=[1])])
def test_a_damaged_index_is_refused(packed: Path, change: Callable[[dict], None]) -> None:
    path = change_index(packed, change)
    assert complaint(lambda: Packed(packed)).startswith(f"{path}: damaged (")


def test_what_older_and_other_settings_leave_is_taken(packed: Path) -> None:
    """The sizes that shards were to have, when it was written, and an index without types."""

    def change(index: dict) -> None:
        del index["config"]["types"]
        index["config"].update(dict.fromkeys(SIZES, 77))
        index["updated_at"] = "1796029128.1"

    change_index(packed, change)
    assert len([Packed(packed)[index] for index in range(4)]) == 4


def test_a_manifest_sets_nothing_but_the_normalisation(packed: Path) -> None:
    manifest = json.loads((packed / "dataset.json").read_text())
    manifest["normalisation"] = {"mean": [1.0], "folder": "/etc"}
    (packed / "dataset.json").write_text(json.dumps(manifest))
    dataset: Any = Packed(packed)
    assert (dataset.mean, dataset.folder) == ([1.0], packed)
