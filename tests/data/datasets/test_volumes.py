"""Slices of NIfTI and DICOM against nibabel's and pydicom's own arrays."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.pixels import apply_modality_lut
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from fcnseg.data import Slices
from fcnseg.data.files.volumes import open_volume
from fcnseg.labels import LabelSpace
from fcnseg.models import from_pretrained
from tests.data.refusals import complaint

SPACE = LabelSpace("organs", ("other", "liver"), ((0, 0, 0), (255, 0, 0)))
SHAPE = (12, 9, 5)
"""Columns, rows and slices."""


def write(root: Path, name: str, seed: int = 0, affine: np.ndarray | None = None, ending: str = ".nii.gz") -> None:
    """A volume in Hounsfield units, stored as 16 bits with slope and intercept, and its label."""
    rng = np.random.default_rng(seed)
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    values = rng.integers(-1000, 2000, SHAPE)
    image = nibabel.Nifti1Image(values.astype(np.int16), np.diag([0.7, 0.7, 5, 1]))
    image.header.set_slope_inter(2, -24)
    image.to_filename(root / "images" / f"{name}{ending}")
    labels = rng.integers(0, 2, SHAPE).astype(np.uint8)
    labels[0, 0] = 255
    nibabel.Nifti1Image(labels, np.diag([0.7, 0.7, 5, 1]) if affine is None else affine).to_filename(
        root / "labels" / f"{name}{ending}"
    )


def write_dicom(path: Path, stored: np.ndarray, **tags: object) -> None:
    """A CT slice or several frames of int16 values, with an intercept of -1024."""
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, pydicom.uid.generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
    file.Rows, file.Columns = stored.shape[-2:]
    if stored.ndim == 3:
        file.NumberOfFrames = len(stored)
    file.SamplesPerPixel, file.PhotometricInterpretation, file.PixelRepresentation = 1, "MONOCHROME2", 1
    file.BitsAllocated = file.BitsStored = 16
    file.HighBit, file.RescaleSlope, file.RescaleIntercept = 15, 1, -1024
    file.PixelData = stored.astype(np.int16).tobytes()
    for name, value in tags.items():
        setattr(file, name, value)
    file.save_as(path, enforce_file_format=True)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_slice_has_its_neighbours_as_channels(tmp_path: Path, ending: str, axis: int) -> None:
    write(tmp_path, "a", ending=ending)
    dataset = Slices(tmp_path / "images", tmp_path / "labels", SPACE, neighbours=1, axis=axis)
    whole = np.moveaxis(nibabel.load(tmp_path / "images" / f"a{ending}").get_fdata(), axis, 0).swapaxes(1, 2)
    labels = np.moveaxis(np.asarray(nibabel.load(tmp_path / "labels" / f"a{ending}").dataobj), axis, 0).swapaxes(1, 2)
    last = SHAPE[axis] - 1
    assert len(dataset) == last + 1
    for number, places in ((0, (0, 0, 1)), (2, (1, 2, 3)), (last, (last - 1, last, last))):
        image, mask, name = dataset[number]
        assert name == f"a@{number}"
        assert image.dtype == np.float32
        assert np.array_equal(image, np.dstack([whole[place] for place in places]))
        assert np.array_equal(mask, labels[number])
    assert whole.min() == pytest.approx(2 * -1000 - 24, abs=60), "slope and intercept"


def test_level_and_width_and_no_neighbours(tmp_path: Path) -> None:
    write(tmp_path, "a")
    plain, seen = (
        Slices(tmp_path / "images", tmp_path / "labels", SPACE, neighbours=0, scaling=scaling)[1][0]
        for scaling in (None, "window:40:400")
    )
    assert plain.shape == (9, 12, 1)
    np.testing.assert_allclose(seen, np.interp(plain, [-160, 240], [0, 1]), atol=1e-6)


def test_volumes_stay_whole_in_a_split(tmp_path: Path) -> None:
    for seed in range(5):
        write(tmp_path, f"patient{seed}", seed)
    folders = tmp_path / "images", tmp_path / "labels", SPACE
    train, val, every = (Slices(*folders, split, val_share=0.4) for split in ("train", "val", "all"))
    assert sorted(train.names + val.names) == every.names == [f"patient{i}" for i in range(5)]
    assert (len(train), len(val)) == (15, 10)
    assert val[7][2] == f"{val.names[1]}@2"
    with pytest.raises(IndexError, match="sample 25 of 25"):
        every[25]


def test_a_real_ct_is_in_hounsfield_units() -> None:
    file = get_testdata_file("CT_small.dcm")
    volume = open_volume(Path(str(file)))
    expected = pydicom.dcmread(file)
    assert volume.shape == (1, 128, 128)
    values = volume.read(0)
    units = apply_modality_lut(expected.pixel_array, expected)
    padding = expected.pixel_array == expected.get("PixelPaddingValue")
    np.testing.assert_array_equal(values, np.where(padding, np.nan, units))
    assert values[~padding].min() >= -1100


def test_a_series_lies_in_the_order_of_its_places(tmp_path: Path) -> None:
    """Across a tilted plane; the names say another order, and the numbers a third one."""
    slices = np.random.default_rng(0).integers(0, 3000, (4, 6, 7))
    axes = [1, 0, 0, 0, 0.8, 0.6]
    across = np.array([0, -0.6, 0.8])
    for place, name in enumerate("cadb"):
        tags = {"ImagePositionPatient": list(100 - 50 + place * 2.5 * across), "ImageOrientationPatient": axes}
        write_dicom(tmp_path / "images" / "p" / f"{name}.dcm", slices[place], InstanceNumber=9 - place, **tags)
        write_dicom(tmp_path / "labels" / "p" / f"{name}.dcm", slices[place] * 0 + 1 + 1024, **tags)
    dataset = Slices(tmp_path / "images", tmp_path / "labels", SPACE, neighbours=0)
    assert [dataset[i][2] for i in range(4)] == ["p@0", "p@1", "p@2", "p@3"]
    assert all(np.array_equal(dataset[i][0][..., 0], slices[i] - 1024) for i in range(4))
    assert (dataset[0][1] == 1).all()
    write_dicom(tmp_path / "images" / "p" / "e.dcm", np.zeros((3, 3)))
    assert "1x3x3; expected one series" in complaint(lambda: open_volume(tmp_path / "images" / "p"))


def test_padding_is_no_data(tmp_path: Path) -> None:
    stored = np.random.default_rng(0).integers(0, 3000, (3, 6, 7))
    stored[:, :2] = -2000
    write_dicom(tmp_path / "images" / "a.dcm", stored, PixelPaddingValue=-2000)
    write_dicom(tmp_path / "labels" / "a.dcm", np.full((3, 6, 7), 1024))
    image, mask, _ = Slices(tmp_path / "images", tmp_path / "labels", SPACE)[1]
    assert np.isnan(image[:2]).all()
    assert np.array_equal(image[2:], np.moveaxis(stored[:, 2:], 0, 2) - 1024)
    assert mask.tolist() == [[255] * 7] * 2 + [[0] * 7] * 4


def test_mistakes_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a")
    images, labels = tmp_path / "images", tmp_path / "labels"

    def refused(**options: object) -> str:
        return complaint(lambda: Slices(images, labels, SPACE, **options)[0])

    assert refused(neighbours=-1) == "neighbours=-1: expected a whole number from 0 on"
    assert refused(axis=3) == "axis=3: expected 0, 1 or 2"
    assert refused(scaling="window").startswith("scaling='window': expected one of")
    write(tmp_path, "a", affine=np.diag([0.7, 0.7, 5, 1]) + np.eye(4, k=3) * 3)
    assert refused() == f"{labels}/a.nii.gz: lies 3 mm from where its image does; expected the same place"
    nibabel.Nifti1Image(np.zeros((12, 9, 4), np.uint8), np.eye(4)).to_filename(labels / "a.nii.gz")
    assert "a.nii.gz: has 4x9x12 voxels, its image 5x9x12" in refused()
    write(tmp_path, "a")
    nibabel.Nifti1Image(np.full(SHAPE, 0.5, np.float32), np.diag([0.7, 0.7, 5, 1])).to_filename(labels / "a.nii.gz")
    assert "a.nii.gz: slice 0 holds 0.5 to 0.5; expected whole ids" in refused()
    (labels / "a.nii.gz").write_bytes((labels / "a.nii.gz").read_bytes()[:40])
    assert "a.nii.gz: cannot be read as a volume" in refused()
    (labels / "a.nii.gz").unlink()
    assert refused() == f"{labels}: no volumes; expected .nii, .nii.gz or .dcm, or folders of .dcm"
    monkeypatch.setitem(sys.modules, "nibabel", None)
    assert complaint(lambda: open_volume(images / "a.nii.gz")).endswith("needs nibabel; pip install fcnseg[medical]")
    write_dicom(tmp_path / "b.dcm", np.zeros((60, 50)))
    monkeypatch.setenv("FCNSEG_MAX_BYTES", "11999")
    assert "b.dcm: cannot be read as a volume (it takes 12000 bytes" in complaint(
        lambda: open_volume(tmp_path / "b.dcm")
    )


@pytest.mark.slow
def test_the_config_trains(fcnseg: Callable[..., int], tmp_path: Path) -> None:
    for seed in range(3):
        write(tmp_path, f"patient{seed}", seed)
    (tmp_path / "classes.txt").write_text("other\nliver\n")
    data = ("data=volumes", f"data.root={tmp_path}", "data.reading.scaling=window:40:400", "data.num_workers=0")
    quick = ("model=fcn8s_vgg16_bn", "model.width=0.05", "data.size=[32,32]", "data.batch_size=2", "logger=none")
    steps = ("trainer.max_steps=2", "trainer.max_epochs=1", "callbacks.progress=null", "hydra.run.dir=run")
    assert fcnseg("train", *data, *quick, *steps) == 0
    assert fcnseg("evaluate", "checkpoint=run/checkpoints/last.ckpt", *data, "hydra.run.dir=scores") == 0
    assert json.loads(Path("scores/metrics.json").read_text())["images"] == 5
    spec = from_pretrained("run/checkpoints/last.ckpt").spec
    assert (spec.in_channels, spec.scaling, spec.image_type) == (3, "window:40:400", "float32")
