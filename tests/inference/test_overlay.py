"""Colours, overlays, legends and palette PNGs, pixel by pixel."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from fcnseg.errors import InputError
from fcnseg.inference import overlay
from fcnseg.inference.overlay import add_legend, blend, colourise, save_mask
from fcnseg.labels import IGNORE_INDEX, STREET11, LabelSpace

RNG = np.random.default_rng(0)


def random_mask(height: int = 12, width: int = 17) -> np.ndarray:
    mask = RNG.integers(0, STREET11.num_classes, (height, width)).astype(np.uint8)
    mask[0, :3] = IGNORE_INDEX
    return mask


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_colourise_paints_each_pixel_in_its_class_colour(dtype: type) -> None:
    mask = random_mask().astype(dtype)
    picture = colourise(mask, STREET11)
    assert picture.dtype == np.uint8
    for row, column in np.ndindex(*mask.shape):
        index = mask[row, column]
        expected = (0, 0, 0) if index == IGNORE_INDEX else STREET11.palette[index]
        assert tuple(picture[row, column]) == expected


@pytest.mark.parametrize("value", [11, 254, -1, 256, 511])
def test_a_value_that_is_no_class_is_refused(value: int) -> None:
    with pytest.raises(InputError, match=f"mask value {value} "):
        colourise(np.full((2, 2), value, np.int64), STREET11)


@pytest.mark.parametrize("mask", [np.zeros((2, 2, 1), np.uint8), np.zeros((2, 2), np.float32)])
def test_what_is_no_mask_is_refused(mask: np.ndarray) -> None:
    with pytest.raises(InputError, match="integers"):
        colourise(mask, STREET11)


@pytest.mark.parametrize("opacity", [0.0, 0.25, 0.5, 0.7, 1.0])
def test_blend_is_the_arithmetic(opacity: float) -> None:
    mask = random_mask()
    image = RNG.integers(0, 256, (*mask.shape, 3), dtype=np.uint8)
    expected = (1 - opacity) * image + opacity * colourise(mask, STREET11)
    expected[mask == IGNORE_INDEX] = image[mask == IGNORE_INDEX]
    result = np.asarray(blend(image, mask, STREET11, opacity)).astype(float)
    assert np.abs(result - expected).max() <= (1 if 0 < opacity < 1 else 0)
    np.testing.assert_array_equal(result[0, :3], image[0, :3])


def test_blend_takes_grey_and_pil_images_alike() -> None:
    mask = random_mask()
    grey = RNG.integers(0, 256, mask.shape, dtype=np.uint8)
    expected = np.asarray(blend(np.repeat(grey[..., None], 3, axis=2), mask, STREET11))
    for image in (grey, Image.fromarray(grey), Image.fromarray(grey).convert("RGBA")):
        np.testing.assert_array_equal(np.asarray(blend(image, mask, STREET11)), expected)


def test_blend_leaves_its_inputs_alone() -> None:
    mask = random_mask()
    image = Image.new("RGB", mask.shape[::-1], (200, 100, 50))
    blend(image, mask, STREET11)
    assert image.getcolors() == [(mask.size, (200, 100, 50))]


@pytest.mark.parametrize("opacity", [-0.01, 1.01, float("nan")])
def test_blend_refuses_an_opacity_outside_0_to_1(opacity: float) -> None:
    with pytest.raises(InputError, match="opacity"):
        blend(np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.uint8), STREET11, opacity)


def test_blend_names_both_sizes_when_they_differ() -> None:
    with pytest.raises(InputError, match=r"image is 4x6.*mask is 6x4"):
        blend(np.zeros((4, 6, 3), np.uint8), np.zeros((6, 4), np.uint8), STREET11)


@pytest.mark.parametrize("image", [np.zeros((2, 2, 3)), np.zeros((2, 2, 4), np.uint8), np.zeros(2, np.uint8)])
def test_blend_refuses_what_is_no_8_bit_image(image: np.ndarray) -> None:
    with pytest.raises(InputError, match="uint8"):
        blend(image, np.zeros((2, 2), np.uint8), STREET11)


@pytest.mark.parametrize("width", [240, 480, 1920])
def test_legend_stands_below_and_shows_the_colours_present(width: int) -> None:
    picture = RNG.integers(0, 256, (30, width, 3), dtype=np.uint8)
    result = np.asarray(add_legend(Image.fromarray(picture), STREET11, np.array([0, 4, 9, 255])))
    np.testing.assert_array_equal(result[:30], picture)
    strip = {tuple(colour) for colour in result[30:].reshape(-1, 3).tolist()}
    palette = STREET11.palette
    assert {palette[0], palette[4], palette[9]} <= strip
    assert not strip & {palette[1], palette[3], palette[10]}


@pytest.mark.parametrize("width", [240, 480, 1920])
def test_legend_wraps_instead_of_running_over_the_edge(width: int) -> None:
    strip = np.asarray(add_legend(Image.new("RGB", (width, 1)), STREET11))[1:]
    assert {tuple(c) for c in strip.reshape(-1, 3).tolist()} >= set(STREET11.palette)
    for border in (strip[:2], strip[-2:], strip[:, :2], strip[:, -2:]):
        assert (border == 255).all()


def test_legend_type_grows_with_the_picture() -> None:
    space = LabelSpace("one", ("car",), ((200, 0, 0),))
    heights = [add_legend(Image.new("RGB", (w, 9)), space).height - 9 for w in (240, 960, 1920, 9600)]
    assert heights[0] < heights[1] < heights[2] == heights[3]
    assert heights[0] >= 20


def test_legend_of_a_large_picture_can_be_read_when_all_of_it_is_looked_at() -> None:
    space = LabelSpace("one", ("car",), ((200, 0, 0),))
    added = [add_legend(Image.new("RGB", (w, w // 2)), space).height / w - 0.5 for w in (1100, 4400)]
    assert added[0] == pytest.approx(added[1], rel=0.02)
    flat = add_legend(Image.new("RGB", (6000, 600)), space).height - 600
    assert flat < 600 / 4


def test_a_large_picture_is_blended_part_by_part_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = random_mask()
    image = RNG.integers(0, 256, (*mask.shape, 3), dtype=np.uint8)
    whole = np.asarray(blend(image, mask, STREET11, 0.3, outline=True))
    monkeypatch.setattr(overlay, "AT_ONCE", 5 * mask.shape[1])  # five rows, and two at the end
    for same in (image, Image.fromarray(image)):
        np.testing.assert_array_equal(np.asarray(blend(same, mask, STREET11, 0.3, outline=True)), whole)


def test_legend_of_nothing_is_the_picture() -> None:
    picture = RNG.integers(0, 256, (8, 9, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(add_legend(picture, STREET11, [IGNORE_INDEX])), picture)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_saved_mask_reads_back_exactly(tmp_path: Path, dtype: type) -> None:
    mask = random_mask()
    path = tmp_path / "made" / "on the way" / "mask.png"
    save_mask(mask.astype(dtype), STREET11, path)
    with Image.open(path) as picture:
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.asarray(picture), mask)
        np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), colourise(mask, STREET11))
    # OpenCV applies the palette, as the docstring says.
    np.testing.assert_array_equal(cv2.imread(str(path))[..., ::-1], colourise(mask, STREET11))
    assert [p.name for p in path.parent.iterdir()] == ["mask.png"]


def test_save_mask_refuses_lossy_files_and_wrong_values(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"mask\.jpg"):
        save_mask(random_mask(), STREET11, tmp_path / "mask.jpg")
    with pytest.raises(InputError, match="mask value 300 "):
        save_mask(np.array([[300]]), STREET11, tmp_path / "mask.png")
    assert not list(tmp_path.iterdir())


@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.sampled_from([0, 3, 255])))
def test_outlines_lie_where_classes_meet(mask: np.ndarray) -> None:
    """Pixel by pixel: lighter where the one on the right or below is of another class; ignored pixels stay."""
    image = np.full((*mask.shape, 3), 7, np.uint8)
    found = np.asarray(blend(image, mask, STREET11, 0.5, outline=True))
    expected = np.asarray(blend(image, mask, STREET11, 0.5)).copy()
    height, width = mask.shape
    for y, x in np.ndindex(height, width):
        neighbours = [mask[y, x + 1] for _ in range(x + 1 < width)] + [mask[y + 1, x] for _ in range(y + 1 < height)]
        if mask[y, x] != 255 and any(other != mask[y, x] for other in neighbours):
            expected[y, x] = STREET11.colours()[mask[y, x]] // 2 + 128
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(np.asarray(blend(image, mask, STREET11, 0, outline=True)), image)
