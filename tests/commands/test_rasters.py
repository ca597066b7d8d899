"""16-bit, multi-band and radar images, from files to masks: they train, evaluate, predict, and travel in packs."""

import json
from pathlib import Path

import large_raster_training
import numpy as np
import pytest
import rasterio
from large_raster_training import write_rasters
from PIL import Image

import fcnseg as library
from fcnseg.data.files.images import read_image
from fcnseg.errors import InputError

CONFIG = """
defaults:
  - loading: default
  - augment: street
  - _self_
_target_: fcnseg.data.SegmentationData
root: ???
size: [32, 48]
allow_overlap: true # there are few files
train:
  scenes: &pairs
    _target_: fcnseg.data.PairedFolder
    images: ${{data.root}}/images
    labels: ${{data.root}}/labels
    label_space:
      _target_: fcnseg.classes.label_space_from_file
      names: ${{data.root}}/classes.txt
    {reading}
val: *pairs
ratio: null
"""

KINDS = {
    "16-bit grey": ("uint16", 1, "channels: 1"),
    "five bands of floats": ("float32", 5, "channels: 5"),
    "radar in decibels": ("float32", 1, "{channels: 1, scaling: decibel}"),
}


def write(root: Path, dtype: str, bands: int) -> None:
    """Fields in two halves, which differ in brightness by a factor, under multiplicative noise."""
    rng = np.random.default_rng(0)
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    (root / "classes.txt").write_text("water\nland\n")
    for i in range(6):
        mask = np.zeros((40, 60), np.uint8)
        mask[:, rng.integers(15, 45) :] = 1
        values = np.where(mask, 9000, 300)[None] * rng.gamma(16, 1 / 16, (bands, *mask.shape))
        with rasterio.open(
            root / "images" / f"{i}.tif", "w", driver="GTiff", height=40, width=60, count=bands, dtype=dtype
        ) as raster:
            raster.write(values.astype(dtype))
        Image.fromarray(mask).save(root / "labels" / f"{i}.png")


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_from_files_to_masks(fcnseg, tmp_path, kind):
    dtype, bands, reading = KINDS[kind]
    write(tmp_path / "field", dtype, bands)
    reading = reading.strip("{}").replace(", ", "\n    ")
    configs = tmp_path / "configs" / "data"
    configs.mkdir(parents=True)
    (configs / "field.yaml").write_text(CONFIG.format(reading=reading).replace("{{", "{").replace("}}", "}"))
    data = (f"hydra.searchpath=[file://{tmp_path / 'configs'}]", "data=field", f"data.root={tmp_path / 'field'}")
    quick = (
        "model=fcn8s_vgg16_bn",
        "model.width=0.05",
        "data.batch_size=4",
        "data.steps_per_epoch=10",
        "trainer.max_epochs=8",
    )
    assert fcnseg("train", *data, *quick, "callbacks.progress=null", "hydra.run.dir=run") == 0

    checkpoint = "run/checkpoints/last.ckpt"
    spec = library.from_pretrained(checkpoint).spec
    assert (spec.in_channels, len(spec.mean), spec.scaling) == (bands, bands, "decibel" if "radar" in kind else None)
    assert fcnseg("evaluate", f"checkpoint={checkpoint}", *data, "hydra.run.dir=scores") == 0
    scores = json.loads(Path("scores/metrics.json").read_text())
    assert scores["mean_iou"] == pytest.approx(json.loads(Path("run/metrics.json").read_text())["mean_iou"], abs=1e-6)
    assert scores["mean_iou"] > 0.8

    assert fcnseg("predict", f"checkpoint={checkpoint}", "input=field/images", "output=out") == 0
    found = [np.asarray(Image.open(f"out/masks/{i}.png")) for i in range(6)]
    labels = [np.asarray(Image.open(f"field/labels/{i}.png")) for i in range(6)]
    assert np.mean([(a == b).mean() for a, b in zip(found, labels, strict=True)]) == pytest.approx(
        scores["pixel_accuracy"], abs=1e-6
    )

    assert fcnseg("data", "pack", *data, "output=pack") == 0
    packed = (*data[:2], "data.packed=pack", f"checkpoint={checkpoint}", "hydra.run.dir=packed")
    assert fcnseg("evaluate", *packed) == 0
    assert json.loads(Path("packed/metrics.json").read_text())["mean_iou"] == pytest.approx(scores["mean_iou"])


def test_a_raster_trains_is_scored_and_predicted_by_windows(fcnseg, tmp_path, monkeypatch, capsys):
    """A single scene, of which no more than a window may be decoded at once: a whole band would take 80 KB."""
    monkeypatch.setattr(large_raster_training, "BLOCK", 64)
    write_rasters(tmp_path, 200)
    monkeypatch.setenv("FCNSEG_MAX_BYTES", "90000")
    with pytest.raises(InputError, match="it takes 800000 bytes, more than 90000"):
        read_image(tmp_path / "images" / "scene.tif", 5)
    data = ("data=raster", f"data.root={tmp_path}", "data.reading.channels=5", "data.window=[64,64]", "data.overlap=16")
    quick = ("model=fcn8s_vgg16_bn", "model.width=0.05", "data.batch_size=4", "data.num_workers=0")
    steps = ("data.steps_per_epoch=80", "trainer.max_epochs=1", "optimizer.lr=0.003", "scheduler=constant")
    assert fcnseg("train", *data, *quick, *steps, "callbacks.progress=null", "logger=none", "hydra.run.dir=run") == 0
    assert "train on 12 raster" in capsys.readouterr().out
    assert fcnseg("evaluate", "checkpoint=run/checkpoints/last.ckpt", *data, "hydra.run.dir=scores") == 0
    scores = json.loads(Path("scores/metrics.json").read_text())
    with np.load("scores/confusions.npz") as found, rasterio.open(tmp_path / "labels" / "scene.tif") as labels:
        counted = next(found[key] for key in found.files if found[key].ndim == 3).sum(axis=(0, 2))
        assert counted.tolist() == np.bincount(labels.read(1)[160:].ravel(), minlength=3).tolist()
    assert scores["pixel_accuracy"] > 0.8
    assert fcnseg("predict", "checkpoint=run/checkpoints/last.ckpt", "input=images", "output=out") == 0
    with rasterio.open("out/masks/scene.tif") as mask, rasterio.open(tmp_path / "labels" / "scene.tif") as labels:
        found, expected = mask.read(1), labels.read(1)
    assert np.array_equal(found == 255, np.add.outer(np.arange(200), np.arange(200)) < 25), "where there is no data"
    assert (found == expected)[160:].mean() > 0.8, "of the whole scene; the scores are of windows, which see less"


def test_a_file_of_another_type_is_refused(fcnseg, tmp_path, capsys):
    cv = np.full((20, 30), 4000, np.uint16)
    Image.fromarray(cv).save(tmp_path / "deep.png")
    assert fcnseg("predict", "checkpoint=demo", "input=deep.png", "output=out") == 2
    assert "deep.png: image has 1 channel of uint16; expected 3" in capsys.readouterr().err
