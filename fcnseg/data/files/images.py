"""Reading image and label files of every kind: what each holds, in its own type and upright.

Plain PNGs have a decoder of their own. PIL reads other 8-bit files and single channels of 16 bits, OpenCV the deeper
PNGs that PIL would cut to 8 bits, and rasterio (the extra `geo`) the TIFFs that neither reads exactly: several bands,
floats, complex numbers, nodata.
"""

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from fcnseg.data.files.labels import ONE_CHANNEL, Colour, label_values
from fcnseg.data.files.png import read_png
from fcnseg.data.files.rasters import (
    bands_of,
    declares_no_data,
    import_rasterio,
    is_tiff,
    is_whole,
    rasterio_for,
    read_bands,
    require_channels,
)
from fcnseg.data.files.values import as_file_values, max_bytes, require_bytes
from fcnseg.errors import GONE, InputError, missing_folder, refuse_endless

BYTES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"})


def read_image(path: str | Path, channels: int = 3, fill: Sequence[float] | None = None) -> np.ndarray:
    """Read an image file as (H, W, channels), in the file's own values: uint8, uint16 or float32.

    Three channels of an 8-bit file are RGB, whatever it holds: grey is repeated, alpha dropped, a palette expanded.
    Otherwise the file must have exactly so many channels. Integers of other types and 64-bit floats become float32,
    and complex numbers (SAR) their amplitude. An orientation in EXIF is carried out.

    What is no data is nan: infinities in floats, and what a TIFF declares so by a value (GDAL_NODATA) or a mask band.
    An image of integers that declares it is therefore float32, unless a `fill` is given.

    Args:
        path: PNG, JPEG, BMP, WebP, PPM, TIFF or GeoTIFF.
        channels: how many to read.
        fill: per channel, what stands for no data in integers of 8 and 16 bits, which then keep their type.

    Raises:
        InputError: when the file is missing, damaged, takes more than `max_bytes`, or has another number of channels.
    """
    path = Path(path)
    with _decoding(path):
        return _read(path, channels, fill=fill)


def read_label(
    path: str | Path, *, channel: int | None = None, colours: Sequence[tuple[Colour, int]] | None = None
) -> np.ndarray:
    """Read a label file as (H, W) uint16, its values as they stand in the file; of a palette PNG, the indices.

    Files of 1, 2 and 4 bits have values from 0 to 1, 3 and 15.

    Args:
        path: an image file of one channel of whole numbers, unless said otherwise below.
        channel: which channel holds the classes in a file of several, counted from 0 in the order red, green, blue:
            0 for SYNTHIA's 16-bit PNGs, whose second channel numbers the objects.
        colours: for a file of colours, pairs of (red, green, blue) and the value that such pixels get.

    Raises:
        InputError: when the file is missing, damaged, or holds something else; unknown colours are listed.
    """
    path = Path(path)
    with _decoding(path):
        if colours is not None:
            return label_values(path, _read(path, 3, raw=True), channel, colours)
        with _opened(path) as image:
            step = _grey_step(image)
            if (
                image is not None
                and channel is not None
                and (single := _plain_samples(path, image, channel)) is not None
            ):
                return label_values(path, _upright(single, _orientation(image)))
            if channel is not None and step == 1:
                return label_values(path, _read(path, None, raw=True), channel)
            if image is None or _is_turned_tiff(image):
                values = label_values(path, _read(path, None, raw=True))
            elif image.mode in ("L", "P", "1") or image.mode.startswith("I"):
                plain = _plain_samples(path, image)
                grey = np.asarray(image) if plain is None else plain[..., 0]
                values = _upright(grey if image.mode == "1" else grey // step, _orientation(image))
                values = values if channel is None else label_values(path, values[..., None].astype(np.uint16), channel)
            else:
                raise InputError(f"{path}: label is a {image.mode} image; {ONE_CHANNEL}")
    if values.size and (values.min() < 0 or values.max() > 65535):
        raise InputError(f"{path}: label values {values.min()} to {values.max()}; expected 0 to 65535")
    return values.astype(np.uint16)


def picture_pixels(image: Image.Image, channels: int = 3, source: str = "image") -> np.ndarray:
    """The (H, W, channels) values of a PIL image, by the rules of `read_image`.

    Raises:
        InputError: when it has another number of channels.
    """
    if image.mode in ("RGBa", "PA"):
        image = image.convert("RGBA")
    if image.mode in BYTES and channels == 3:
        pixels = np.array(image if image.mode == "RGB" else image.convert("RGB"))
    else:
        if image.mode in ("P", "1"):
            image = image.convert("RGB" if image.mode == "P" else "L")
        pixels = _with_channels(np.array(image))
        require_channels(channels, pixels.shape[2], pixels.dtype.name, source)
    return _upright(as_file_values(pixels), _orientation(image))


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) of an image file, upright, from its head alone, however large it is.

    Raises:
        InputError: when the file is missing or no image.
    """
    path = Path(path)
    with _decoding(path), warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # nothing is decoded
        try:
            with Image.open(path) as image:
                turned = _orientation(image) >= 5
                return (image.width, image.height) if turned else (image.height, image.width)
        except (UnidentifiedImageError, Image.DecompressionBombError):
            with rasterio_for(path).open(path) as raster:
                return raster.height, raster.width


def is_turned(path: str | Path) -> bool:
    """Whether a file's EXIF says that the picture is to be turned or mirrored; of what is no image, not."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return _orientation(image) in range(2, 9)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False


def known_pixels(path: str | Path) -> np.ndarray | None:
    """(H, W) bool, false where a label file declares by a value or a mask band that it has no data.

    None where it has it everywhere, as in all formats but TIFF.

    Raises:
        InputError: when the file is missing or damaged.
    """
    path = Path(path)
    with _decoding(path):
        if not is_tiff(path):
            return None
        with _opened(path) as image:
            if image is not None and not _lacks_data(path, image):
                return None
            orientation = 1 if image is None else _orientation(image)
        with rasterio_for(path).open(path, driver="GTiff") as raster:
            if not declares_no_data(raster, [1]):
                return None
            require_bytes(path, raster.width * raster.height)
            return _upright(raster.read_masks(1) > 0, orientation)


# Opening


@contextmanager
def _decoding(path: Path) -> Iterator[None]:
    """Turn every way in which a file cannot be decoded into one line that names it."""
    refuse_endless(path)
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        gone = missing_folder(path)
        raise InputError(f"{path}: no such file" + (f", and no folder {gone}" if gone else "")) from None
    except Image.DecompressionBombError:
        raise _too_large(path) from None
    except (OSError, SyntaxError, ValueError, MemoryError, cv2.error) as error:
        raise InputError(f"{path}: cannot be read as an image ({_reason(path, error)})") from error


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in GONE:
        return f"{error.strerror}; the disk or the file system that it is on has failed"
    if path.is_dir():
        return "it is a folder"
    if path.is_file() and path.stat().st_size == 0:
        return "it is empty"
    if isinstance(error, UnidentifiedImageError):
        return "its content is no known image format"
    if any(words in str(error) for words in ("unpack_from requires", "Truncated File Read", "is truncated")):
        return "it is cut off"
    # rasterio's own message refers to the one that it was raised from.
    return " ".join(str(error.__cause__ or error).split()) or type(error).__name__


def _too_large(path: Path) -> InputError:
    return InputError(
        f"{path}: cannot be read as an image (more than {2 * (Image.MAX_IMAGE_PIXELS or 0)} pixels, which may be a "
        "decompression bomb; set the environment variable FCNSEG_MAX_BYTES to allow as many bytes as it has)"
    )


@contextmanager
def _opened(path: Path, channels: int | None = None) -> Iterator[ImageFile.ImageFile | None]:
    """The file as PIL sees it, not decoded yet; None for a kind of TIFF that PIL does not know."""
    if Image.MAX_IMAGE_PIXELS is not None and "FCNSEG_MAX_BYTES" in os.environ:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_bytes())  # PIL refuses at twice its own limit
    try:
        image = Image.open(path)
    except UnidentifiedImageError:
        if not is_tiff(path):
            raise
        yield None
        return
    with image:
        samples = max(len(image.getbands()), channels or 1)
        require_bytes(path, image.width * image.height * samples * _sample_bytes(image))
        yield image


def _sample_bytes(image: ImageFile.ImageFile) -> int:
    if image.mode in BYTES:
        return 2 if _is_deep(image) else 1
    return 2 if image.mode.startswith("I;16") else 4


def _lacks_data(path: Path, image: ImageFile.ImageFile) -> bool:
    """Whether a TIFF that PIL decodes has a value or a mask for no data, as far as rasterio is there and can tell."""
    if image.format != "TIFF":
        return False
    try:
        rasterio = import_rasterio()
    except ImportError:
        return False
    try:
        with rasterio.open(path, driver="GTiff") as raster:
            return declares_no_data(raster, raster.indexes)
    except rasterio.errors.RasterioIOError:
        return False


# Decoding


def _read(path: Path, channels: int | None, fill: Sequence[float] | None = None, raw: bool = False) -> np.ndarray:
    """(H, W, C) pixels; `channels` None takes all that there are; `fill` and `raw` as in `read_bands`."""
    with _opened(path, channels) as image:
        if image is not None and (samples := _plain_samples(path, image)) is not None:
            return _upright(_as_asked(samples, image, channels, f"{path}: image"), _orientation(image))
        if image is not None and _pil_is_exact(image, channels) and (raw or not _lacks_data(path, image)):
            wanted = channels or (3 if image.mode in ("P", "PA") else len(image.getbands()))
            image.load()
            return picture_pixels(image, wanted, f"{path}: image")
        if image is None or image.format == "TIFF":
            pixels = _read_raster(path, channels, fill, raw)
        else:
            pixels = _read_opencv(path, image)
            require_channels(channels, pixels.shape[2], pixels.dtype.name, f"{path}: image")
        return _upright(pixels, 1 if image is None else _orientation(image))


def _plain_samples(path: Path, image: ImageFile.ImageFile, channel: int | None = None) -> np.ndarray | None:
    """What `read_png` gives; nothing either for a single channel of a palette's colours."""
    if image.format != "PNG" or (channel is not None and image.mode == "P"):
        return None
    return read_png(path, channel)


def _as_asked(samples: np.ndarray, image: ImageFile.ImageFile, channels: int | None, source: str) -> np.ndarray:
    """The (H, W, channels) values of a PNG's samples, by the rules of `read_image`."""
    if image.mode == "P":
        samples = cv2.LUT(cv2.cvtColor(samples, cv2.COLOR_GRAY2RGB), _palette(image))
    elif samples.dtype == np.uint8 and channels == 3 and samples.shape[2] != 3:
        kept = np.ascontiguousarray(samples[..., 0]) if samples.shape[2] == 2 else samples
        samples = cv2.cvtColor(kept, cv2.COLOR_RGBA2RGB if samples.shape[2] == 4 else cv2.COLOR_GRAY2RGB)
    require_channels(channels, samples.shape[2], samples.dtype.name, source)
    return samples


def _palette(image: ImageFile.ImageFile) -> np.ndarray:
    """(1, 256, 3) uint8 colours of a palette as PIL sees them, also of indices beyond its end."""
    strip = Image.frombytes("P", (256, 1), bytes(range(256)))
    if image.palette is not None:
        mode, colours = image.palette.getdata()
        strip.putpalette(colours, mode)
    return np.array(strip.convert("RGB"))


def _pil_is_exact(image: ImageFile.ImageFile, channels: int | None) -> bool:
    """Whether PIL decodes all that the file holds, or, for RGB of an 8-bit file, all that is asked for."""
    if _is_turned_tiff(image):
        return False
    if image.mode.startswith("I;16"):
        return True
    if image.mode not in BYTES or _is_deep(image):
        return False
    samples = image.tag_v2.get(277, 1) if hasattr(image, "tag_v2") else len(image.getbands())  # TIFF SamplesPerPixel
    return channels == 3 or samples == len(image.getbands())


def _is_turned_tiff(image: ImageFile.ImageFile) -> bool:
    """Whether it is a TIFF lying on its side, which Pillow 13 decodes with its sides swapped."""
    return hasattr(image, "tag_v2") and image.tag_v2.get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)


def _is_deep(image: ImageFile.ImageFile) -> bool:
    """Whether PIL would cut 16 bits to 8; a PPM with its own scale of values counts as well."""
    if image.format == "PPM":
        return image.tile[0].codec_name.startswith("ppm")
    return image.format in ("PNG", "TIFF") and ";16" in _raw_mode(image)


def _raw_mode(image: ImageFile.ImageFile) -> str:
    """PIL's word for how the values lie in the file, such as "RGB;16B"."""
    if not image.tile:
        raise ValueError("it has no pixels")
    arguments = image.tile[0].args
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def _grey_step(image: ImageFile.ImageFile | None) -> int:
    """What PIL multiplies the grey values of a file of 1, 2 or 4 bits by, to spread them from 0 to 255."""
    if image is None or image.mode not in ("1", "L"):
        return 1
    bits = _raw_mode(image).partition(";")[2]
    return 255 if image.mode == "1" else {"2": 85, "4": 17}.get(bits[:1], 1)


def _read_opencv(path: Path, image: ImageFile.ImageFile) -> np.ndarray:
    """A PNG or PPM of more than 8 bits; OpenCV's channels come as blue, green, red."""
    order = {"I": [0], "L": [0], "LA": [0, 3], "RGB": [2, 1, 0], "RGBA": [2, 1, 0, 3]}.get(
        _raw_mode(image).split(";")[0]
    )
    image.verify()  # by its checksums: not every release of OpenCV notices that a file ends early
    pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or order is None:
        raise ValueError("its pixels are damaged or of an unknown kind")
    return as_file_values(np.ascontiguousarray(_with_channels(pixels)[..., order]))


def _read_raster(path: Path, channels: int | None, fill: Sequence[float] | None, raw: bool) -> np.ndarray:
    """A TIFF with bands of any number and type."""
    with rasterio_for(path).open(path, driver="GTiff") as raster:
        bands, colours = bands_of(raster, channels, path)
        sample = 4 if not is_whole(raster) or declares_no_data(raster, bands) else np.dtype(raster.dtypes[0]).itemsize
        require_bytes(path, raster.width * raster.height * len(bands) * sample)
        return read_bands(raster, bands, colours, fill=fill, raw=raw)


# Values


def _with_channels(pixels: np.ndarray) -> np.ndarray:
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _orientation(image: Image.Image) -> int:
    """EXIF's number from 1 (upright) to 8; damaged EXIF is passed over, as viewers do."""
    try:
        # Not the method of PNG images, which decodes the picture to look for EXIF behind it.
        return Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except (OSError, SyntaxError, ValueError):
        return 1


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Carry out an EXIF orientation: first along the diagonal, then mirror rows and columns."""
    if orientation not in range(2, 9):
        return pixels
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    rows, columns = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return np.ascontiguousarray(pixels[:: -1 if rows else 1, :: -1 if columns else 1])
