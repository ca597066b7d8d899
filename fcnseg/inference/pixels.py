"""What the predictor takes for an image; all else ends in a line that says what was expected."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from fcnseg.data.files.images import picture_pixels, read_image
from fcnseg.data.files.values import as_file_values
from fcnseg.errors import InputError
from fcnseg.models.spec import ModelSpec

ImageLike = str | Path | Image.Image | np.ndarray | Tensor


def file_values(image: ImageLike, spec: ModelSpec) -> np.ndarray:
    """Any accepted image as (H, W, in_channels) uint8, uint16 or float32, in the values of a file.

    Args:
        image: a path, a PIL image, an (H, W, C) or (H, W) array, or a (C, H, W) or (H, W) tensor. One channel of
            uint8 is repeated for a model of three.
        spec: of the model that is to see it.

    Raises:
        InputError: for an unreadable file, anything that is no image, another number of channels, or values of
            another type than the model was trained on.
    """
    if isinstance(image, str | Path):
        pixels = read_image(Path(image), spec.in_channels, spec.fill)
    elif isinstance(image, Image.Image):
        pixels = _of_picture(image, spec)
    elif isinstance(image, Tensor):
        pixels = _of_tensor(image, spec)
    elif isinstance(image, np.ndarray):
        pixels = _of_array(np.asarray(image), spec)
    else:
        raise InputError(_no_image(image, spec))
    if spec.scaling is None and pixels.dtype.name != spec.image_type:
        raise InputError(_other_type(image, pixels, spec))
    return pixels


def _of_picture(picture: Image.Image, spec: ModelSpec) -> np.ndarray:
    if 0 in picture.size:
        raise InputError(f"image is empty: a PIL image of {picture.width} x {picture.height} pixels")
    try:
        pixels = picture_pixels(picture, spec.in_channels)
    except InputError:
        raise InputError(
            f"image is a PIL image of mode {picture.mode}; expected {_channels(spec)} of {_types(spec)}"
        ) from None
    except (OSError, SyntaxError, ValueError) as error:  # opened earlier, and decoded only now
        raise InputError(f"image cannot be decoded ({error})") from error
    if picture.mode == "I" and spec.image_type == "uint16" and pixels.min() >= 0 and pixels.max() <= 65535:
        return pixels.astype(np.uint16)  # how PIL holds files of 16 bits, in many of its releases
    return pixels


def _of_tensor(tensor: Tensor, spec: ModelSpec) -> np.ndarray:
    _require(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), "tensor", spec)
    tensor = tensor.detach().cpu()
    array = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return _of_array(array if array.ndim == 2 else array.transpose(1, 2, 0), spec)


def _of_array(array: np.ndarray, spec: ModelSpec) -> np.ndarray:
    _require(array.shape, array.dtype.name, "array", spec)
    pixels = array[..., None] if array.ndim == 2 else array
    grey = pixels.shape[2] != spec.in_channels
    return as_file_values(np.repeat(pixels, spec.in_channels, axis=2) if grey else pixels)


def _require(shape: tuple[int, ...], dtype: str, kind: str, spec: ModelSpec) -> None:
    """Refuse an array or a tensor that cannot be an image for the model, whatever its values."""
    wanted = spec.in_channels
    order, step = (
        (f"H, W, {wanted}", "transpose(1, 2, 0)") if kind == "array" else (f"{wanted}, H, W", "permute(2, 0, 1)")
    )
    also = " or (H, W)" if wanted in (1, 3) else ""
    line = f"image is a {shape} {dtype} {kind}; expected ({order}){also} {_types(spec)}"
    first, last = (shape[0], shape[2]) if len(shape) == 3 else (1, 1)
    channels, opposite = (last, first) if kind == "array" else (first, last)
    fits = channels == wanted or (channels == 1 and wanted == 3 and dtype == "uint8")
    if opposite == wanted and not fits:
        raise InputError(f"{line}; image.{step} puts its axes in this order")
    known = dtype in ("uint8", "uint16") or dtype.startswith(("float", "bfloat", "longdouble"))
    if len(shape) not in (2, 3) or 0 in shape or not known or not fits:
        raise InputError(line)


def _other_type(image: ImageLike, pixels: np.ndarray, spec: ModelSpec) -> str:
    """The line for values that the model does not know, with the conversion where it is plain to see."""
    if isinstance(image, str | Path):
        return f"{image}: has {pixels.dtype} values, the model was trained on {spec.image_type}"
    low, high = pixels.min(), pixels.max()
    line = f"image has {pixels.dtype} values from {low:g} to {high:g}; the model was trained on {spec.image_type}"
    most = {"uint8": 255, "uint16": 65535}.get(spec.image_type, 0)
    if pixels.dtype.kind != "f" or low < 0 or high > most:
        return line
    name = "np.asarray(image)" if isinstance(image, Image.Image) else "image"
    whole = f"({name} * {most}).round()" if high <= 1 else f"{name}.round()"
    cast = f"to(torch.{spec.image_type})" if isinstance(image, Tensor) else f"astype(np.{spec.image_type})"
    return f"{line}: give {whole}.{cast}"


def _no_image(thing: Any, spec: ModelSpec) -> str:
    kind = "None" if thing is None else f"of type {type(thing).__name__}"
    if isinstance(thing, bytes | bytearray):
        return f"image is {kind}; give PIL.Image.open(io.BytesIO(image))"
    sizes = f"an (H, W, {spec.in_channels}) array or a ({spec.in_channels}, H, W) tensor"
    return f"image is {kind}; expected a path, a PIL image, {sizes} of {_types(spec)}"


def _channels(spec: ModelSpec) -> str:
    return f"{spec.in_channels} channel{'s' * (spec.in_channels != 1)}"


def _types(spec: ModelSpec) -> str:
    return spec.image_type if spec.scaling is None else "uint8, uint16 or float32"
