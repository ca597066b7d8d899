"""Every data config trains from end to end on tiny files in the true layout."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.data import layouts

SIZE = (24, 36)
QUICK = (
    "model=fcn8s_vgg16_bn",
    "model.width=0.05",
    f"data.size=[{SIZE[0]},{SIZE[1]}]",
    "data.batch_size=2",
    "data.num_workers=0",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=1",
    "callbacks.progress=null",
    "callbacks.learning_rate=null",
    "logger=none",
    "hydra.run.dir=run",
)
BLOCKS = ("data.split.block=2",)


def synthia_seqs(root: Path) -> Path:
    return layouts.synthia_seqs(root, ["SYNTHIA-SEQS-04-DAWN/Stereo_Left/Omni_F"], 6, SIZE)


def synthia_and(other: Callable[..., Path], synthia: Callable[..., Path], *args: object) -> Callable[[Path], list[str]]:
    def write(root: Path) -> list[str]:
        real = other(root / "real", *args, SIZE)
        return [f"data.root.{other.__name__}={real}", f"data.root.synthia={synthia(root / 'synthia', 4, SIZE)}"]

    return write


def plain(name: str) -> Callable[[Path], Path]:
    """Three pairs for training and two for validation, in the true layout."""
    return lambda root: layouts.plain_tree(name, root, 3, 2, SIZE)


def gta5_and_cityscapes(root: Path) -> list[str]:
    layouts.cityscapes(root / "cityscapes", {"train/bonn": 3, "val/lindau": 1}, SIZE)
    layouts.gta5(root / "gta5", 4, 0, SIZE)
    return [f"data.root.cityscapes={root / 'cityscapes'}", f"data.root.gta5={root / 'gta5'}"]


def camvid_and_kitti(root: Path) -> list[str]:
    layouts.camvid(root / "camvid", {"train": 3, "val": 1}, SIZE)
    layouts.kitti(root / "kitti", 2, SIZE)
    return [f"data.root.camvid={root / 'camvid'}", f"data.root.kitti={root / 'kitti'}", "data.train.synthetic.length=4"]


def voc_and_sbd(root: Path) -> list[str]:
    layouts.voc(root / "voc", {"val": ("2007_000033", "2007_000042")}, SIZE)
    layouts.sbd(root / "sbd", {"train": ("2008_000002", "2008_000007", "2007_000042")}, SIZE)
    return [f"data.root.voc={root / 'voc'}", f"data.root.sbd={root / 'sbd'}"]


# config: what writes its files and gives their root; settings; images for training and validation
CONFIGS: dict[str, tuple[Callable[[Path], Path | list[str]], tuple[str, ...], str, int]] = {
    "camvid32": (
        lambda root: layouts.camvid32(root, {"train": ("a", "b", "c"), "val": ("d",)}, SIZE), (), "3 camvid", 1
    ),
    "cityscapes": (
        lambda root: layouts.cityscapes(root, {"train/bonn": 3, "val/lindau": 2}, SIZE), (), "3 cityscapes", 2
    ),
    "kitti": (lambda root: layouts.kitti(root, 20, SIZE), (), "10 kitti", 10),
    "voc": (lambda root: layouts.voc(root, {"train": ("a", "b"), "val": ("c",)}, SIZE), (), "2 voc", 1),
    "voc_sbd": (voc_and_sbd, (), "3 sbd", 1),
    "synthia_rand": (lambda root: layouts.synthia_rand(root, 6, SIZE), BLOCKS, "4 synthia", 2),
    "synthia_seqs": (synthia_seqs, BLOCKS, "4 synthia", 2),
    "synthia_rand_cityscapes": (
        lambda root: layouts.synthia_rand_cityscapes(root, 6, SIZE), BLOCKS, "4 synthia", 2
    ),
    "synthia_camvid_bgc": (
        synthia_and(layouts.camvid, layouts.synthia_rand, {"train": 3, "val": 1}),
        (), "3 camvid, 4 synthia (a batch: 1 camvid, 1 synthia)", 1,
    ),
    "synthia_cityscapes_bgc": (
        synthia_and(layouts.cityscapes, layouts.synthia_rand_cityscapes, {"train/bonn": 3, "val/lindau": 1}),
        (), "3 cityscapes, 4 synthia (a batch: 1 cityscapes, 1 synthia)", 1,
    ),
    "synthia_cityscapes19_bgc": (
        synthia_and(layouts.cityscapes, layouts.synthia_rand_cityscapes, {"train/bonn": 3, "val/lindau": 1}),
        (), "3 cityscapes, 4 synthia (a batch: 1 cityscapes, 1 synthia)", 1,
    ),
    "synthia_cityscapes13_bgc": (
        synthia_and(layouts.cityscapes, layouts.synthia_rand_cityscapes, {"train/bonn": 3, "val/lindau": 1}),
        (), "3 cityscapes, 4 synthia (a batch: 1 cityscapes, 1 synthia)", 1,
    ),
    "gta5": (lambda root: layouts.gta5(root, 3, 2, SIZE), (), "3 gta5", 2),
    "bdd100k": (plain("bdd100k"), (), "3 bdd100k", 2),
    "acdc": (plain("acdc"), ("data.only={condition: night}",), "3 acdc", 2),
    "idd": (plain("idd"), (), "3 idd", 2),
    "mapillary": (plain("mapillary"), (), "3 mapillary", 2),
    "ade20k": (plain("ade20k"), (), "3 ade20k", 2),
    "laid_out": (plain("idd"), ("data.layout=idd",), "3 laid_out", 2),
    "gta5_cityscapes_bgc": (
        gta5_and_cityscapes, (), "3 cityscapes, 4 gta5 (a batch: 1 cityscapes, 1 gta5)", 1
    ),
    "real_synthetic_bgc": (camvid_and_kitti, (), "5 real, 4 synthetic (a batch: 1 real, 1 synthetic)", 1),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_the_config_trains_an_epoch(name: str, fcnseg: Callable[..., int], tmp_path: Path, capsys) -> None:
    write, settings, train, val = CONFIGS[name]
    written = write(tmp_path / "data")
    roots = [f"data.root={written}"] if isinstance(written, Path) else written
    assert fcnseg("train", f"data={name}", *roots, *settings, *QUICK) == 0, capsys.readouterr().err
    shown = capsys.readouterr().out
    assert f"train on {train}" in shown
    assert f"validate on {val}\n" in shown
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()


@pytest.mark.slow
def test_validation_needs_the_real_root_alone(fcnseg: Callable[..., int], tmp_path: Path, capsys) -> None:
    write, *_ = CONFIGS["synthia_camvid_bgc"]
    real, synthia = write(tmp_path / "data")
    assert fcnseg("train", "data=synthia_camvid_bgc", real, *QUICK) == 2
    complaint = capsys.readouterr().err.strip()
    assert re.fullmatch(r"fcnseg: \S*synthia\S*: a value is missing; give it as \S+=VALUE", complaint)
    assert fcnseg("train", "data=synthia_camvid_bgc", real, synthia, *QUICK) == 0
    checkpoint = "checkpoint=run/checkpoints/last.ckpt"
    assert fcnseg("evaluate", checkpoint, "data=synthia_camvid_bgc", real) == 0, capsys.readouterr().err


@pytest.mark.parametrize("config", ["synthia_rand", "synthia_rand_cityscapes", "kitti"])
def test_one_setting_splits_both_sides_and_two_are_refused(
    config: str, fcnseg: Callable[..., int], tmp_path: Path, capsys
) -> None:
    write = getattr(layouts, config)
    root = write(tmp_path / "data", 20, SIZE)
    settings = [f"data={config}", f"data.root={root}", "output=out"]
    assert fcnseg("data", "inspect", *settings, "data.split.block=4", "data.split.seed=3") == 0
    splits = json.loads((tmp_path / "out" / "report.json").read_text())["splits"]
    assert (splits["train"]["pairs"], splits["val"]["pairs"]) == (16, 4)
    capsys.readouterr()
    nested = "" if config == "kitti" else ".dataset"
    assert fcnseg("data", "inspect", *settings, "data.split.block=4", f"data.val{nested}.block=5") == 2
    assert re.search(r"both in training domain '\w+' and in validation", capsys.readouterr().err)
