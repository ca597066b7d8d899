"""Masks of volumes against those of their slices one by one, in the space of the file."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image
from pydicom.data import get_testdata_file

from fcnseg.data.files.volumes import open_volume
from fcnseg.inference import Predictor
from fcnseg.inference.volumes import segment_volume
from fcnseg.models import create_model
from tests.data.refusals import complaint

AFFINE = np.array([[0.0, -0.7, 0, 10], [0.7, 0, 0, -5], [0, 0, 5, 0], [0, 0, 0, 1]])


def scan(folder: Path, ending: str = ".nii.gz") -> Path:
    """Four noisy fields, three axes of different lengths, turned in space, without data in a corner."""
    folder.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(0).normal(0, 60, (40, 32, 24)).astype(np.float32)
    values[20:] += 200
    values[:, 16:] -= 150
    values[:3, :2] = np.nan
    nibabel.Nifti1Image(values, AFFINE).to_filename(folder / f"scan.of.1{ending}")
    return folder / f"scan.of.1{ending}"


def network(channels: int = 3, **options: object):
    return create_model(
        "fcn8s_vgg16_bn", width=0.05, num_classes=3, in_channels=channels, image_type="float32",
        mean=[0.5] * channels, std=[0.3] * channels, scaling="window:40:400", **options,
    )  # fmt: skip


@pytest.fixture
def predictor() -> Predictor:
    torch.manual_seed(0)
    model = network()
    for name, module in model.named_children():  # a network that tells pixels apart, without training
        if name.startswith("score"):
            torch.nn.init.normal_(module.weight)
    values = torch.from_numpy(np.random.default_rng(2).uniform(0, 1, (1, 3, 64, 64)).astype(np.float32))
    with torch.no_grad():
        model.score_fr.bias -= model.eval()(values).mean(dim=(0, 2, 3))
    return Predictor(model, "cpu", scale="native")


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_volume_is_its_slices_in_its_own_space(tmp_path: Path, predictor: Predictor, axis: int, ending: str) -> None:
    source = scan(tmp_path, ending)
    done: list[None] = []
    written = segment_volume(
        predictor, source, tmp_path / "masks", tmp_path / "overlays", axis=axis, progress=lambda: done.append(None)
    )
    assert written == tmp_path / "masks" / "scan.of.1.nii.gz"
    found = nibabel.load(written)
    assert found.get_data_dtype() == np.uint8
    np.testing.assert_allclose(found.affine, AFFINE, atol=1e-6)  # stored in 32 bits
    masks, values = np.asarray(found.dataobj), np.asarray(nibabel.load(source).dataobj)
    assert masks.shape == values.shape
    assert ((masks == 255) == np.isnan(values)).all()
    assert len(np.unique(masks)) > 2
    slices = open_volume(source, axis)
    assert len(done) == slices.shape[0]
    for number in range(slices.shape[0]):
        alone = predictor(slices.around(number, 1)).mask.T
        ours, known = masks.take(number, axis), ~np.isnan(values.take(number, axis))
        np.testing.assert_array_equal(ours[known], alone[known])
    assert len(list((tmp_path / "overlays" / "scan.of.1").iterdir())) == slices.shape[0]


def test_slices_of_dicom_are_pictures(tmp_path: Path, predictor: Predictor) -> None:
    ct = Path(str(get_testdata_file("CT_small.dcm")))
    written = segment_volume(predictor, ct, tmp_path / "masks")
    assert [path.name for path in sorted(written.iterdir())] == ["0000.png"]
    volume = open_volume(ct)
    mask, known = np.asarray(Image.open(written / "0000.png")), ~np.isnan(volume.read(0))
    np.testing.assert_array_equal(mask[known], predictor(volume.around(0, 1)).mask[known])
    assert (mask[~known] == 255).all()


def test_the_command_takes_a_file_and_a_folder(fcnseg, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    network().save_pretrained("model")
    source = scan(tmp_path / "scans")
    settings = ("checkpoint=model", "device=cpu")
    assert fcnseg("predict", *settings, f"input={source}", "output=one", "axis=1") == 0, capsys.readouterr().err
    assert len(list(Path("one/overlays/scan.of.1").iterdir())) == 32
    assert fcnseg("predict", *settings, f"input={source.parent}", "output=all", "overlays=false") == 0
    assert "24 slices of 1 volume " in capsys.readouterr().out
    assert [path.as_posix() for path in Path("all").rglob("*") if path.is_file()] == ["all/masks/scan.of.1.nii.gz"]

    def refused(*extra: str) -> str:
        assert fcnseg("predict", *settings, f"input={source}", "output=other", *extra) == 2
        return capsys.readouterr().err.strip()

    assert refused("entropy=true").endswith("entropy=true: of volumes there are masks and overlays alone")
    assert refused("axis=3").endswith("axis=3: expected 0, 1 or 2")
    assert not Path("other/masks").exists() or not list(Path("other/masks").iterdir())
    (tmp_path / "masks").mkdir()
    moved = source.rename(tmp_path / "masks" / source.name)
    assert fcnseg("predict", *settings, f"input={moved}", f"output={tmp_path}") == 2
    assert "holds the volumes of input" in capsys.readouterr().err


def test_a_slice_stands_in_the_midst_of_its_neighbours(tmp_path: Path) -> None:
    source = scan(tmp_path)
    predictor = Predictor(network(2), "cpu")
    expected = "the model takes 2 channels; expected an odd number, a slice with neighbours"
    assert complaint(lambda: segment_volume(predictor, source, tmp_path / "masks")) == expected
