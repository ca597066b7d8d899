"""The predictor: the same mask from a path, a picture or an array, in the image's own size."""

import numpy as np
import pytest
import torch
from PIL import Image

import fcnseg
from fcnseg.data import STREET11, CityScenes
from fcnseg.errors import InputError
from fcnseg.models import resample


@pytest.fixture(scope="module")
def predictor():
    """An untrained network whose scores are not all zero, so that masks have structure."""
    torch.manual_seed(0)
    model = fcnseg.create_model(
        "fcn8s_alexnet", num_classes=11, width=0.1, input_size=(45, 60), label_space=STREET11.to_dict()
    )
    for name in ("score_fr", "score_pool1", "score_pool2"):
        torch.nn.init.normal_(model.get_submodule(name).weight)
    return fcnseg.Predictor(model, device="cpu")


@pytest.fixture(scope="module")
def image():
    return CityScenes(1, seed=3, look="real", size=(90, 121))[0][0]


def test_path_picture_and_array_give_the_same_mask(predictor, image, tmp_path):
    Image.fromarray(image).save(tmp_path / "a.png")
    masks = [
        predictor(source).mask
        for source in (tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(image), image)
    ]
    assert masks[0].shape == (90, 121)
    assert masks[0].dtype == np.uint8
    assert len(np.unique(masks[0])) > 1
    for mask in masks[1:]:
        np.testing.assert_array_equal(mask, masks[0])


def test_the_image_is_prepared_as_the_spec_says(predictor, image):
    """Resized by area, normalised, scored, resampled to the image's size: written out step by step."""
    small = np.asarray(Image.fromarray(image).resize((60, 45), Image.Resampling.BOX), dtype=np.float32)
    with torch.inference_mode():
        model = predictor.model
        x = (torch.tensor(small).permute(2, 0, 1)[None] - model.mean) / model.std
        expected = resample(model(x), (90, 121)).argmax(1)[0].numpy()
    # PIL's box filter and OpenCV's area average round differently by at most one grey level.
    assert (predictor(image).mask == expected).mean() > 0.98


def test_grey_images_are_taken_as_three_equal_channels(predictor, image):
    grey = image[..., 0]
    np.testing.assert_array_equal(predictor(grey).mask, predictor(np.stack([grey] * 3, axis=-1)).mask)


@pytest.mark.parametrize(
    "array", [np.zeros((4, 4, 2), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)]
)
def test_other_arrays_are_refused(predictor, array):
    with pytest.raises(InputError, match=r"expected \(H, W, 3\) or \(H, W\) uint8"):
        predictor(array)


def test_saved_files_hold_the_mask_and_the_overlay(predictor, image, tmp_path):
    segmentation = predictor(image)
    segmentation.save(tmp_path / "masks" / "a.png", tmp_path / "overlays" / "a.png", opacity=0.3)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "masks" / "a.png")), segmentation.mask)
    overlay = np.asarray(Image.open(tmp_path / "overlays" / "a.png"))
    np.testing.assert_array_equal(overlay[:90], np.asarray(segmentation.overlay(0.3)))


def test_a_model_without_label_space_gets_numbered_classes():
    model = fcnseg.create_model("fcn32s_alexnet", num_classes=3, width=0.05)
    space = fcnseg.Predictor(model, device="cpu").label_space
    assert space.classes == ("class 0", "class 1", "class 2")
    assert len(set(space.palette)) == 3


def test_an_unknown_device_is_named():
    with pytest.raises(InputError, match="device=gpu9: not available here"):
        fcnseg.Predictor(fcnseg.create_model("fcn32s_alexnet", num_classes=3, width=0.05), device="gpu9")
