"""Sweeps (`-m`): every run in a folder of one that is named for all of them, without being told a name."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from fcnseg.commands import configuration
from fcnseg.runs.folder import output_folder

MODELS = "model=fcn32s_vgg16,fcn8s_alexnet"


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., list[tuple[str, Path]]]]:
    """Carry out a sweep that trains nothing; returns each run's name and folder."""
    monkeypatch.chdir(tmp_path)

    def call(*overrides: str) -> list[tuple[str, Path]]:
        runs: list[tuple[str, Path]] = []

        def note(config: DictConfig) -> None:
            runs.append((config.name, output_folder().relative_to(tmp_path)))

        GlobalHydra.instance().clear()
        configuration.run("train", ["-m", *overrides], note)
        return runs

    yield call
    GlobalHydra.instance().clear()


@pytest.mark.parametrize(
    ("overrides", "whole", "names"),
    [
        (["seed=0,1"], "citygen-fcn8s_vgg16_bn", ["citygen-fcn8s_vgg16_bn"] * 2),
        ([MODELS], "citygen", ["citygen-fcn32s_vgg16", "citygen-fcn8s_alexnet"]),
        (["data=camvid,kitti"], "fcn8s_vgg16_bn", ["camvid-fcn8s_vgg16_bn", "kitti-fcn8s_vgg16_bn"]),
        (["experiment=demo,camvid_quick"], "sweep", ["demo", "camvid_quick"]),
        ([MODELS, "name=mine"], "mine", ["mine", "mine"]),
        (["regime=finetune,bgc", "trainer=ddp_cpu"], "citygen-fcn8s_vgg16_bn", ["citygen-fcn8s_vgg16_bn"] * 2),
    ],
)
def test_a_sweep_has_one_folder_named_for_all_its_runs(sweep, overrides, whole, names):
    runs = sweep(*overrides)
    assert [name for name, _ in runs] == names
    top = {folder.parent for _, folder in runs}
    assert [folder.name for _, folder in runs] == ["0", "1"]
    assert len(top) == 1
    assert top.pop().parent == Path("runs", whole)


def test_the_folder_of_a_sweep_can_be_chosen(sweep):
    assert [folder for _, folder in sweep("seed=0,1,2", "hydra.sweep.dir=runs/seeds")] == [
        Path("runs/seeds", str(number)) for number in range(3)
    ]
