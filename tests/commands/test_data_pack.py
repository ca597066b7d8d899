"""`fcnseg data pack`: what it writes, what it says, and that its help has an example."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate

from fcnseg.commands import configuration
from fcnseg.commands.data_pack import run
from fcnseg.data import CamVid
from fcnseg.data.storage.packed import Packed, packed_nodes
from fcnseg.errors import InputError


@pytest.fixture
def data_pack(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fcnseg", "data", "pack"])

    def call(*overrides: object) -> None:
        GlobalHydra.instance().clear()
        configuration.run("data_pack", list(map(str, overrides)), run)

    return call


def test_a_dataset_is_packed_and_can_be_trained_on(data_pack, camvid: Path, tmp_path: Path, capsys) -> None:
    data_pack("data=camvid", f"data.root={camvid}", "output=packed", "size=[24,32]")
    assert capsys.readouterr().out.splitlines() == [
        "packed and verified 8 train/camvid, 4 val: 0.0 MB",
        "train on it with  data.packed=packed",
    ]
    nodes = instantiate(packed_nodes(tmp_path / "packed"))
    assert isinstance(nodes["val"], Packed)
    assert len(nodes["train"]["camvid"]) == 8
    assert nodes["val"][1][0].shape == (24, 32, 3)
    assert nodes["val"][1][2] == CamVid(camvid, "val")[1][2]


def test_several_domains_and_generated_scenes(data_pack, tmp_path: Path) -> None:
    lengths = [f"data.train.{name}.length=3" for name in ("real", "synthetic")]
    data_pack("output=packed", "data.size=[48,64]", "data.val.length=2", *lengths, "data.batch_size=5")
    data = {part: Packed(tmp_path / "packed" / part) for part in ("train/real", "train/synthetic", "val")}
    assert [len(dataset) for dataset in data.values()] == [3, 3, 2]
    assert not np.array_equal(data["train/real"][0][0], data["train/synthetic"][0][0])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "output: a value is missing; give it as output=FOLDER"),
        (["output=out", "data=camvid"], "data.root: a value is missing; give it as data.root=PATH"),
        (["output=out", "size=[24]"], "size=[24]: expected [height, width] in pixels"),
        (["output=out", "size=24"], "size=24: expected [height, width] in pixels"),
        (["output=out", "jpeg_quality=101"], "jpeg_quality=101: expected a whole number from 1 to 100"),
    ],
)
def test_mistakes_are_named_in_one_line(data_pack, tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(InputError) as refusal:
        data_pack(*overrides)
    assert str(refusal.value) == message
    assert not (tmp_path / "out").exists()


def test_help_has_an_example(data_pack, capsys) -> None:
    with pytest.raises(SystemExit):
        data_pack("--help")
    shown = capsys.readouterr().out
    assert "fcnseg data pack: write" in shown
    assert "fcnseg data pack data=camvid data.root=PATH output=packed/camvid" in shown
