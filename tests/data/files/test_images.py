"""Images and labels of every kind, written by other libraries and read back value for value."""

import io
import struct
import sys
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
from PIL import Image, ImageOps

from fcnseg.data.files import png
from fcnseg.data.files.images import known_pixels, picture_pixels, read_image, read_label
from fcnseg.data.files.values import without_data
from fcnseg.errors import InputError
from tests.data.refusals import complaint

pytestmark = [
    pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:PIL"),  # on damaged files
]

SHARED = Path(__file__).parents[4] / "shared" / "data" / "synthia_seqs_sample" / "SYNTHIA-SEQS-04-DAWN"


def noise(*shape: int, dtype: str = "uint8", seed: int = 0) -> np.ndarray:
    """Values over the whole range of the type: for floats, amplitudes of several orders of magnitude."""
    rng = np.random.default_rng(seed)
    kind = np.dtype(dtype)
    if kind.kind == "c":
        return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(kind)
    if kind.kind == "f":
        return np.exp(rng.normal(0, 3, shape)).astype(kind)
    return rng.integers(np.iinfo(kind).min, np.iinfo(kind).max, shape, kind, endpoint=True)


def write_raster(path: Path, pixels: np.ndarray, **options: object) -> Path:
    """A GeoTIFF of (H, W, C) values."""
    height, width, count = pixels.shape
    dtype = options.pop("dtype", pixels.dtype)
    options = {"driver": "GTiff", "height": height, "width": width, "count": count, "dtype": dtype, **options}
    with rasterio.open(path, "w", **options) as file:
        file.write(np.moveaxis(pixels, 2, 0))
    return path


# Images of every type


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_files_that_opencv_writes_keep_type_and_values(tmp_path: Path, channels: int, dtype: str, ending: str) -> None:
    pixels = noise(5, 7, channels, dtype=dtype)
    file = tmp_path / f"image{ending}"
    bgr = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[channels]
    cv2.imwrite(str(file), np.ascontiguousarray(pixels[..., bgr]))
    read = read_image(file, channels)
    assert read.dtype == dtype
    assert np.array_equal(read, pixels)
    assert read.flags.writeable
    assert read.flags.c_contiguous


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 13])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("layout", [{}, {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate"}])
def test_rasters_of_any_number_of_bands_keep_type_and_values(
    tmp_path: Path, channels: int, dtype: str, layout: dict[str, object]
) -> None:
    pixels = noise(20, 33, channels, dtype=dtype)
    read = read_image(write_raster(tmp_path / "image.tif", pixels, **layout), channels)
    assert read.dtype == dtype
    assert np.array_equal(read, pixels)


@pytest.mark.parametrize("dtype", ["int16", "int32", "uint32", "float64"])
@pytest.mark.parametrize("channels", [1, 3])
def test_other_numbers_become_float32(tmp_path: Path, dtype: str, channels: int) -> None:
    pixels = noise(5, 7, channels, dtype=dtype)
    read = read_image(write_raster(tmp_path / "image.tif", pixels), channels)
    assert read.dtype == np.float32
    assert np.array_equal(read, pixels.astype(np.float32))


@pytest.mark.parametrize("dtype", ["complex64", "complex128", "complex_int16"])
def test_complex_radar_images_become_their_amplitude(tmp_path: Path, dtype: str) -> None:
    values = np.array([[3 + 4j, -5 + 12j], [0, 8j]], np.complex64 if "int" in dtype else dtype)
    read = read_image(write_raster(tmp_path / "slc.tif", values[..., None], dtype=dtype), 1)
    assert read.dtype == np.float32
    np.testing.assert_allclose(read[..., 0], [[5, 13], [0, 8]], rtol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "nodata", "expected"),
    [
        ("float32", None, [[1.5, np.nan], [np.nan, np.nan]]),
        ("float32", 1.5, [[np.nan, np.nan], [np.nan, np.nan]]),
        ("float64", -9999, [[1.5, np.nan], [np.nan, np.nan]]),
    ],
)
def test_what_is_no_data_in_floats_is_nan(tmp_path: Path, dtype: str, nodata: float, expected: list) -> None:
    values = np.array([[1.5, np.nan], [np.inf, -np.inf if dtype == "float32" else -9999]], dtype)
    read = read_image(write_raster(tmp_path / "a.tif", values[..., None], nodata=nodata), 1)
    np.testing.assert_array_equal(read[..., 0], np.array(expected, np.float32))


@pytest.mark.parametrize(("dtype", "channels"), [("int16", 1), ("uint16", 1), ("uint8", 1), ("uint16", 4)])
def test_a_value_for_no_data_makes_integers_floats(tmp_path: Path, dtype: str, channels: int) -> None:
    nodata = int(np.iinfo(dtype).max)
    values = np.dstack([[[nodata, 12, 7]]] * channels).astype(dtype)
    file = write_raster(tmp_path / "a.tif", values, nodata=nodata)
    read = read_image(file, channels)
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, np.dstack([[[np.nan, 12, 7]]] * channels))
    filled = read_image(file, channels, fill=[4.6] * channels)
    if dtype == "int16":
        np.testing.assert_array_equal(filled, read)  # which is float32 in any case
    else:
        assert filled.dtype == dtype
        np.testing.assert_array_equal(filled, np.dstack([[[5, 12, 7]]] * channels))
    clean = write_raster(tmp_path / "b.tif", values)
    assert np.array_equal(read_image(clean, channels), values)


def test_8_bit_pictures_may_declare_no_data_as_well(tmp_path: Path) -> None:
    """Grey, RGB and a palette, each read as RGB; the place without data is one that has it in no band."""
    grey, rgb = np.array([[[0], [9]]], np.uint8), np.array([[[0, 0, 0], [0, 5, 9]]], np.uint8)
    read = read_image(write_raster(tmp_path / "grey.tif", grey, nodata=0))
    np.testing.assert_array_equal(read, [[[np.nan] * 3, [9] * 3]])
    read = read_image(write_raster(tmp_path / "rgb.tif", rgb, nodata=0, photometric="RGB"))
    np.testing.assert_array_equal(read, [[[np.nan] * 3, [np.nan, 5, 9]]])
    assert without_data(read).tolist() == [[True, False]]
    write_raster(tmp_path / "palette.tif", grey, photometric="palette")
    with rasterio.open(tmp_path / "palette.tif", "r+") as file:
        file.write_colormap(1, {0: (0, 0, 0), 9: (10, 20, 30)})
        file.nodata = 0
    np.testing.assert_array_equal(read_image(tmp_path / "palette.tif"), [[[np.nan] * 3, [10, 20, 30]]])


@pytest.mark.parametrize("internal", [True, False])
def test_a_mask_band_tells_what_is_no_data(tmp_path: Path, internal: bool) -> None:
    pixels = noise(16, 16, 3)
    known = noise(16, 16) > 99
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal):
        write_raster(tmp_path / "a.tif", pixels, photometric="RGB")
        with rasterio.open(tmp_path / "a.tif", "r+") as file:
            file.write_mask(known)
    assert (tmp_path / "a.tif.msk").exists() is not internal
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), np.where(known[..., None], pixels, np.nan))
    np.testing.assert_array_equal(known_pixels(tmp_path / "a.tif"), known)
    assert read_label(tmp_path / "a.tif", channel=1).tolist() == pixels[..., 1].tolist()


def test_alpha_is_no_mask(tmp_path: Path) -> None:
    pixels = noise(5, 7, 4)
    file = write_raster(tmp_path / "a.tif", pixels, photometric="RGB", alpha="unspecified")
    assert np.array_equal(read_image(file), pixels[..., :3])


@pytest.mark.parametrize(("kind", "dtype"), [("PNG", "uint8"), ("BMP", "uint8"), ("WEBP", "uint8"), ("PPM", "uint8")])
def test_lossless_8_bit_formats_keep_their_values(tmp_path: Path, kind: str, dtype: str) -> None:
    pixels = noise(5, 7, 3)
    Image.fromarray(pixels).save(tmp_path / "image", kind, **({"lossless": True} if kind == "WEBP" else {}))
    assert np.array_equal(read_image(tmp_path / "image"), pixels)


@pytest.mark.parametrize(("ending", "channels"), [("pgm", 1), ("ppm", 3)])
def test_deep_netpbm_files_keep_their_16_bits(tmp_path: Path, ending: str, channels: int) -> None:
    pixels = noise(5, 7, channels, dtype="uint16")
    header = f"{'P5' if channels == 1 else 'P6'} 7 5 65535\n".encode()
    (tmp_path / f"a.{ending}").write_bytes(header + pixels.astype(">u2").tobytes())
    assert np.array_equal(read_image(tmp_path / f"a.{ending}", channels), pixels)


def test_a_jpeg_is_read_as_pil_decodes_it(tmp_path: Path) -> None:
    smooth = cv2.resize(noise(4, 5, 3), (50, 40), interpolation=cv2.INTER_CUBIC)
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95)
    read = read_image(tmp_path / "a.jpg")
    assert np.array_equal(read, np.asarray(Image.open(tmp_path / "a.jpg")))
    assert np.abs(read.astype(int) - smooth).mean() < 6


def test_grey_with_alpha_has_two_channels(tmp_path: Path) -> None:
    pixels = noise(5, 7, 2)
    Image.fromarray(pixels, "LA").save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png", 2), pixels)
    deep = noise(5, 7, 2, dtype="uint16")
    write_deep_png(tmp_path / "b.png", deep, colour_type=4)
    assert np.array_equal(read_image(tmp_path / "b.png", 2), deep)


def write_deep_png(path: Path, pixels: np.ndarray, colour_type: int, rows: int | None = None) -> None:
    """A PNG of 16 bits per channel, byte by byte as its specification has it; `rows` are fewer than it says."""
    height, width, _ = pixels.shape
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([16, colour_type, 0, 0, 0])
    body = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels[:rows])
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(body)), (b"IEND", b""))
    packed = (len(d).to_bytes(4, "big") + n + d + zlib.crc32(n + d).to_bytes(4, "big") for n, d in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))


def test_two_values_and_alpha_of_other_kinds_are_spelled_out(tmp_path: Path) -> None:
    bits = noise(5, 7) > 128
    Image.fromarray(bits).save(tmp_path / "bits.png")
    assert np.array_equal(read_image(tmp_path / "bits.png", 1)[..., 0], bits * 255)
    opaque = np.dstack([noise(5, 7, 3), np.full((5, 7), 255, np.uint8)])
    opaque[0, :, 3] = 0
    multiplied = Image.fromarray(opaque).convert("RGBa")
    assert np.array_equal(picture_pixels(multiplied, 4)[1:], opaque[1:])
    assert (np.asarray(multiplied)[0] == 0).all()
    palette = Image.fromarray(noise(5, 7, 3)).quantize(8).convert("PA")
    assert np.array_equal(picture_pixels(palette, 4), np.asarray(palette.convert("RGBA")))


# Channels that do not fit


@pytest.mark.parametrize(
    ("pixels", "channels", "found"),
    [
        (noise(4, 4, 3), 1, "3 channels of uint8; expected 1; channels=3 reads it"),
        (noise(4, 4, 3), 5, "3 channels of uint8; expected 5; channels=3 reads it"),
        (noise(4, 4, 1, dtype="uint16"), 3, "1 channel of uint16; expected 3; channels=1 reads it"),
        (noise(4, 4, 4, dtype="uint16"), 3, "4 channels of uint16; expected 3; channels=4 reads it"),
        (noise(4, 4, 13, dtype="float32"), 3, "13 channels of float32; expected 3; channels=13 reads it"),
    ],
)
def test_another_number_of_channels_is_refused_with_the_setting_that_fits(
    tmp_path: Path, pixels: np.ndarray, channels: int, found: str
) -> None:
    file = write_raster(tmp_path / "a.tif", pixels)
    assert complaint(lambda: read_image(file, channels)) == f"{file}: image has {found}"
    assert read_image(file, pixels.shape[2]).shape == pixels.shape


def test_a_palette_is_expanded_before_its_channels_count(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    Image.fromarray(noise(5, 7, 3)).quantize(8).save(file)
    with Image.open(file) as image:
        colours = np.asarray(image.convert("RGB"))
    assert np.array_equal(read_image(file), colours)
    assert "3 channels of uint8; expected 1" in complaint(lambda: read_image(file, 1))


def test_a_fourth_band_that_is_no_alpha_is_not_lost(tmp_path: Path) -> None:
    """Red, green, blue and near infrared, as PIL would open it: RGB and a byte to skip."""
    pixels = noise(5, 7, 4)
    file = write_raster(tmp_path / "a.tif", pixels, photometric="RGB", alpha="NO")
    with Image.open(file) as image:
        assert image.mode == "RGB"
    assert np.array_equal(read_image(file, 4), pixels)
    assert np.array_equal(read_image(file, 3), pixels[..., :3])


# Orientation


UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda a: np.rot90(a, -1),  # a quarter turn clockwise
    7: lambda a: np.rot90(a, 2).T,
    8: np.rot90,
}
"""What a viewer does, by EXIF's orientation (CIPA DC-008, section 4.6.4, tag 274)."""


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize(("kind", "dtype"), [("PNG", "uint8"), ("TIFF", "uint8"), ("TIFF", "uint16")])
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_images_and_labels_are_upright(
    tmp_path: Path, orientation: int, kind: str, dtype: str, compression: str | None
) -> None:
    pixels = noise(5, 7, dtype=dtype)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "a", kind, exif=exif, compression=compression)
    expected = UPRIGHT[orientation](pixels)
    assert np.array_equal(read_image(tmp_path / "a", 1)[..., 0], expected)
    assert np.array_equal(read_label(tmp_path / "a"), expected)


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_photographs_are_as_pil_turns_them(tmp_path: Path, orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(noise(8, 16, 3)).save(tmp_path / "a", kind, exif=exif)
    with Image.open(tmp_path / "a") as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert expected.shape == ((8, 16, 3) if orientation < 5 else (16, 8, 3))
    assert np.array_equal(read_image(tmp_path / "a"), expected)
    with Image.open(tmp_path / "a") as image:
        assert np.array_equal(picture_pixels(image), expected)


def test_deep_pngs_are_upright_too(tmp_path: Path) -> None:
    pixels = noise(5, 7, 3, dtype="uint16")
    write_deep_png(tmp_path / "a.png", pixels, colour_type=2)
    whole = (tmp_path / "a.png").read_bytes()
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise
    data = exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = len(data).to_bytes(4, "big") + b"eXIf" + data + zlib.crc32(b"eXIf" + data).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(whole[:33] + chunk + whole[33:])  # behind the header
    assert np.array_equal(read_image(tmp_path / "a.png"), np.rot90(pixels, -1))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG"])
def test_damaged_exif_does_not_hide_the_picture(tmp_path: Path, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    Image.fromarray(noise(8, 8, 3)).save(stream, kind, exif=exif)
    whole, block = stream.getvalue(), exif.tobytes().removeprefix(b"Exif\0\0")
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(block)
        damaged[rng.integers(0, len(block))] = rng.integers(0, 256)
        content = whole.replace(block, bytes(damaged))
        if kind == "PNG":
            chunk = b"eXIf" + block
            content = content.replace(
                zlib.crc32(chunk).to_bytes(4, "big"), zlib.crc32(b"eXIf" + damaged).to_bytes(4, "big")
            )
        (tmp_path / "a").write_bytes(content)
        assert read_image(tmp_path / "a").shape == (8, 8, 3)


# Labels


def test_ids_can_lie_in_one_channel_of_several(tmp_path: Path) -> None:
    pixels = noise(5, 7, 3, dtype="uint16")
    write_deep_png(tmp_path / "a.png", pixels, colour_type=2)
    for channel in range(3):
        assert np.array_equal(read_label(tmp_path / "a.png", channel=channel), pixels[..., channel])
    raster = write_raster(tmp_path / "b.tif", noise(5, 7, 6))
    assert np.array_equal(read_label(raster, channel=5), noise(5, 7, 6)[..., 5])
    assert complaint(lambda: read_label(raster, channel=6)) == f"{raster}: label has 6 channels; there is no channel 6"
    floats = write_raster(tmp_path / "c.tif", noise(5, 7, 2, dtype="float32"))
    assert complaint(lambda: read_label(floats, channel=0)).startswith(f"{floats}: label has 2 channels of float32")


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no SYNTHIA sample in {SHARED}")
def test_a_real_synthia_label_has_its_classes_in_the_red_channel() -> None:
    """Opened byte by byte: the row filters of its PNG are undone by OpenCV, whose red channel is the last."""
    file = SHARED / "GT" / "LABELS" / "Stereo_Left" / "Omni_F" / "000000.png"
    raw = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    ids = read_label(file, channel=0)
    assert ids.shape == (760, 1280)
    assert np.array_equal(ids, raw[..., 2])
    assert set(np.unique(ids)) <= set(range(16))
    assert len(np.unique(ids)) > 5


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32"])
def test_single_band_rasters_are_labels(tmp_path: Path, dtype: str) -> None:
    values = noise(5, 7, 1, dtype="uint16") % (200 if dtype == "uint8" else 300)
    file = write_raster(tmp_path / "a.tif", values.astype(dtype), compress="lzw")
    assert np.array_equal(read_label(file), values[..., 0])


PALETTE = (((128, 64, 128), 7), ((0, 0, 142), 300), ((0, 0, 0), 0), ((255, 255, 255), 1))


def test_colour_labels_are_looked_up_pixel_by_pixel(tmp_path: Path) -> None:
    choice = np.random.default_rng(0).integers(0, 4, (9, 11))
    picture = np.array([colour for colour, _ in PALETTE], np.uint8)[choice]
    expected = np.array([value for _, value in PALETTE])[choice]
    rgba = np.dstack([picture, noise(9, 11)])
    Image.fromarray(picture).save(tmp_path / "rgb.png")
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    Image.fromarray(picture).quantize(4).save(tmp_path / "palette.png")
    for name in ("rgb.png", "rgba.png", "palette.png"):
        values = read_label(tmp_path / name, colours=PALETTE)
        assert values.dtype == np.uint16
        assert np.array_equal(values, expected)


def test_unknown_colours_are_counted_and_the_commonest_come_first(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    picture = np.zeros((4, 5, 3), np.uint8)
    picture[0, 0] = (1, 2, 3)
    picture[1] = (254, 255, 255)
    Image.fromarray(picture).save(file)
    message = complaint(lambda: read_label(file, colours=PALETTE))
    assert message == f"{file}: label has colours of no class: (254, 255, 255) on 5 pixels, (1, 2, 3) on 1 pixel"
    Image.fromarray(noise(4, 5, 3)).save(file)
    assert complaint(lambda: read_label(file, colours=PALETTE)).endswith(" and 15 more colours")
    write_deep_png(file, noise(4, 5, 3, dtype="uint16"), colour_type=2)
    assert complaint(lambda: read_label(file, colours=PALETTE)).startswith(f"{file}: label has uint16 colours")


def test_a_picture_in_memory_follows_the_rules_of_files() -> None:
    grey = noise(5, 7)
    assert np.array_equal(picture_pixels(Image.fromarray(grey)), np.stack([grey] * 3, axis=2))
    deep = noise(5, 7, dtype="uint16")
    assert picture_pixels(Image.fromarray(deep), 1).dtype == np.uint16
    floats = noise(5, 7, dtype="float32")
    assert np.array_equal(picture_pixels(Image.fromarray(floats), 1)[..., 0], floats)
    message = complaint(lambda: picture_pixels(Image.fromarray(floats)))
    assert message == "image has 1 channel of float32; expected 3; channels=1 reads it"


# Files that are not what they seem


def damaged_files(folder: Path) -> dict[str, Path]:
    """One file of each kind that cannot be read."""
    files = {name: folder / f"{name}.tif" for name in ("cut", "cut_floats", "cut_header", "empty", "text", "folder")}
    whole = write_raster(folder / "whole.tif", noise(60, 60, 3)).read_bytes()
    floats = write_raster(folder / "floats.tif", noise(60, 60, 5, dtype="float32"), compress="deflate").read_bytes()
    files["cut"].write_bytes(whole[: len(whole) // 2])
    files["cut_floats"].write_bytes(floats[: len(floats) // 2])
    files["cut_header"].write_bytes(floats[:8])
    files["empty"].touch()
    files["text"].write_text("to be done")
    files["folder"].mkdir()
    files["deep"] = folder / "deep.png"
    write_deep_png(files["deep"], noise(60, 60, 3, dtype="uint16"), colour_type=2)
    files["deep"].write_bytes(files["deep"].read_bytes()[:-300])
    files["rows"] = folder / "rows.png"
    write_deep_png(files["rows"], noise(60, 60, 3, dtype="uint16"), colour_type=2, rows=30)
    return files


@pytest.mark.parametrize("name", ["cut", "cut_floats", "cut_header", "empty", "text", "folder", "deep", "rows"])
def test_damaged_files_are_one_line(tmp_path: Path, name: str) -> None:
    file = damaged_files(tmp_path)[name]
    reasons = {"empty": "it is empty)", "folder": "it is a folder)", "text": "its content is no known image format)"}
    calls: list[Callable[[], object]] = [lambda: read_image(file), lambda: read_label(file, colours=PALETTE)]
    if name == "cut_floats":
        calls = [lambda: read_image(file, 5)]
    for call in (*calls, lambda: read_label(file, channel=0)):
        message = complaint(call)
        assert message.startswith(f"{file}: cannot be read as an image (")
        assert message.endswith(reasons.get(name, ")"))


def test_deep_and_raster_files_with_random_damage_are_read_or_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    write_deep_png(tmp_path / "a.png", noise(12, 12, 3, dtype="uint16"), colour_type=2)
    sources = [(tmp_path / "a.png").read_bytes()]
    sources.append(write_raster(tmp_path / "a.tif", noise(12, 12, 3, dtype="float32"), compress="lzw").read_bytes())
    refused = read = 0
    for whole in sources * 60:
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            damaged[place] = rng.integers(0, 256)
        (tmp_path / "a").write_bytes(damaged[: rng.integers(1, 2 * len(whole))])
        try:
            read_image(tmp_path / "a")
        except InputError as error:
            refused += str(error).startswith(f"{tmp_path / 'a'}: ") and "\n" not in str(error)
        else:
            read += 1
    assert refused + read == 120
    assert refused > 30


@pytest.mark.parametrize("kind", ["png", "deep", "raster"])
def test_the_limit_of_bytes_is_checked_first_and_can_be_moved(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a"
    if kind == "png":
        Image.fromarray(noise(30, 40, 3)).save(file, "PNG")
    elif kind == "deep":
        write_deep_png(file, noise(30, 40, 3, dtype="uint16"), colour_type=2)
    else:
        write_raster(file, noise(30, 40, 3, dtype="float32"))
    size = read_image(file).nbytes
    assert size == 30 * 40 * 3 * {"png": 1, "deep": 2, "raster": 4}[kind]
    monkeypatch.setenv("FCNSEG_MAX_BYTES", str(size))
    assert read_image(file).shape == (30, 40, 3)
    monkeypatch.setenv("FCNSEG_MAX_BYTES", str(size - 1))
    decoders = ((png, "zlib_decompress"), (Image.Image, "convert"), (cv2, "imdecode"), (rasterio.DatasetReader, "read"))
    for library, function in decoders:
        with suppress(TypeError):  # a type of an extension
            monkeypatch.setattr(library, function, lambda *_: pytest.fail("decoded before it was refused"))
    message = complaint(lambda: read_image(file))
    assert message.startswith(f"{file}: cannot be read as an image (it takes {size} bytes, more than {size - 1}")
    assert "FCNSEG_MAX_BYTES" in message
    monkeypatch.setenv("FCNSEG_MAX_BYTES", "many")
    assert complaint(lambda: read_image(file)).startswith("FCNSEG_MAX_BYTES=many: expected a whole number")


def test_images_beyond_pils_own_limit_are_read_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if PIL's limit were 500 pixels: it refuses at twice as many."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    file = tmp_path / "a.png"
    Image.fromarray(noise(30, 40, 3)).save(file)
    assert "more than 1000 pixels" in complaint(lambda: read_image(file))
    monkeypatch.setenv("FCNSEG_MAX_BYTES", "900")
    assert "more than 900, and may be" in complaint(lambda: read_image(file))
    monkeypatch.setenv("FCNSEG_MAX_BYTES", "4000")
    assert np.array_equal(read_image(file), noise(30, 40, 3))


def test_without_rasterio_its_files_name_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fcnseg.data.files import rasters

    floats = write_raster(tmp_path / "a.tif", noise(5, 7, 5, dtype="float32"))
    plain = write_raster(tmp_path / "b.tif", noise(5, 7, 3))
    rasters.import_rasterio.cache_clear()
    monkeypatch.setitem(sys.modules, "rasterio", None)  # what Python does for a module that cannot be imported
    assert complaint(lambda: read_image(floats, 5)) == (
        f"{floats}: this kind of TIFF needs rasterio; pip install fcnseg[geo]"
    )
    assert np.array_equal(read_image(plain), noise(5, 7, 3))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("channel", [None, 0])
def test_grey_pngs_of_few_bits_keep_their_label_values(tmp_path: Path, bits: int, channel: int | None) -> None:
    """Written byte by byte as the specification of PNG has it: several values in a byte, the first ones in its top."""
    values = np.random.default_rng(bits).integers(0, 2**bits, (7, 13))
    rows = ["".join(f"{v:0{bits}b}" for v in row) for row in values]
    data = b"".join(b"\0" + int(row.ljust(-(-len(row) // 8) * 8, "0"), 2).to_bytes(-(-len(row) // 8)) for row in rows)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 13, 7, bits, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(data)),
        (b"IEND", b""),
    ]
    (tmp_path / "x.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    )
    assert np.array_equal(read_label(tmp_path / "x.png", channel=channel), values)


@pytest.mark.parametrize("bits", [2, 4])
def test_grey_tiffs_of_few_bits_keep_their_label_values(tmp_path: Path, bits: int) -> None:
    rasterio = pytest.importorskip("rasterio")
    values = np.random.default_rng(bits).integers(0, 2**bits, (7, 13)).astype(np.uint8)
    shape = {"driver": "GTiff", "height": 7, "width": 13, "count": 1, "dtype": "uint8"}
    with (
        pytest.warns(rasterio.errors.NotGeoreferencedWarning),
        rasterio.open(tmp_path / "x.tif", "w", nbits=bits, **shape) as file,
    ):
        file.write(values, 1)
    assert np.array_equal(read_label(tmp_path / "x.tif"), values)
