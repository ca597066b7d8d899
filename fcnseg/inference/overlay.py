"""Pictures of masks: colours, overlays, legends and palette PNGs, in numpy and PIL alone."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fcnseg.atomic import replacing
from fcnseg.errors import InputError
from fcnseg.labels import IGNORE_INDEX, LabelSpace

AT_ONCE = 1 << 22
"""Pixels that are blended at once; together they would take a large picture's memory several times."""


def colourise(mask: np.ndarray, label_space: LabelSpace) -> np.ndarray:
    """Paint a (H, W) mask of class indices in its classes' colours: (H, W, 3) uint8, ignored pixels black.

    Raises:
        InputError: when the mask is not (H, W) integers, or a value is neither a class nor the ignore index.
    """
    return np.take(label_space.colours(), _checked(mask, label_space), axis=0)


def blend(
    image: np.ndarray | Image.Image,
    mask: np.ndarray,
    label_space: LabelSpace,
    opacity: float = 0.5,
    outline: bool = False,
) -> Image.Image:
    """Lay the colours of a (H, W) mask over an image; ignored pixels stay as they are in the image.

    A pixel becomes image + opacity * (colour - image), to within one grey level: the image itself at
    opacity 0, the plain colours at 1. Outlines are lines of a pixel where one class meets another on its right or
    below, in a lighter tone of its colour: dark classes show in dark images too.

    Args:
        image: (H, W, 3) or (H, W) uint8, or a PIL image of the mask's size.
        mask: (H, W) class indices, 255 where ignored.
        label_space: whose colours to use.
        opacity: 0 to 1; at 0 there are no outlines either.
        outline: whether classes are outlined.

    Raises:
        InputError: when the opacity, the image's type, the mask's values or the two sizes do not fit.
    """
    if not 0 <= opacity <= 1:
        raise InputError(f"opacity {opacity} is outside 0 to 1")
    mask = _checked(mask, label_space)
    picture = image if isinstance(image, Image.Image) else _checked_image(image)
    size = picture.size if isinstance(picture, Image.Image) else picture.shape[1::-1]
    if size != mask.shape[::-1]:
        height, width = mask.shape
        raise InputError(f"image is {size[1]}x{size[0]}, mask is {height}x{width} (HxW)")
    mixed = Image.new("RGB", size)
    rows = max(AT_ONCE // max(size[0], 1), 1)
    for top in range(0, size[1], rows):
        bottom = min(top + rows, size[1])
        box = (0, top, size[0], bottom)
        base = picture.crop(box) if isinstance(picture, Image.Image) else picture[top:bottom]
        part = _blended(_as_rgb(base), mask[top:bottom], label_space, opacity)
        if outline and opacity:
            _draw_outlines(part, mask[top : bottom + 1], label_space)
        mixed.paste(part, box)
    return mixed


def _blended(base: Image.Image, mask: np.ndarray, label_space: LabelSpace, opacity: float) -> Image.Image:
    """A few rows of `blend`."""
    # PIL mixes in 8 bits: a tenth of the time and memory of floating-point arrays.
    mixed = Image.blend(base, Image.fromarray(np.take(label_space.colours(), mask, axis=0)), opacity)
    ignored = mask == IGNORE_INDEX
    if ignored.any():
        mixed.paste(base, mask=Image.fromarray(ignored))
    return mixed


def _draw_outlines(picture: Image.Image, mask: np.ndarray, label_space: LabelSpace) -> None:
    """Into a few rows; the mask may have one row more, which the last of them meets."""
    edges = np.zeros((picture.height, picture.width), bool)
    rows = mask[: picture.height]
    edges[:, :-1] = rows[:, :-1] != rows[:, 1:]
    edges[: len(mask) - 1] |= mask[:-1] != mask[1:]
    edges &= rows != IGNORE_INDEX
    lighter = (label_space.colours() // 2 + 128).astype(np.uint8)
    picture.paste(Image.fromarray(np.take(lighter, rows, axis=0)), mask=Image.fromarray(edges))


def add_legend(
    picture: Image.Image | np.ndarray, label_space: LabelSpace, present: Iterable[int] | None = None
) -> Image.Image:
    """Extend a picture downwards by a strip with the colours and names of classes.

    The names stand in columns that fit the picture's width, in a type size that follows it, up to a twelfth of the
    height; a name that is wider than the whole picture is cut at its edge.

    Args:
        picture: the PIL image or uint8 array above the legend; its pixels stay as they are, in RGB.
        label_space: names and colours.
        present: indices of the classes to show, `np.unique(mask)` for instance; other values, such as
            the ignore index, are passed over. None shows all classes.
    """
    picture = _as_rgb(picture)
    wanted = None if present is None else {int(i) for i in present}
    shown = [i for i in range(label_space.num_classes) if wanted is None or i in wanted]
    if not shown:
        return picture.copy()
    size = max(min(picture.width // 55, max(picture.height // 12, 26)), 11)
    font = ImageFont.load_default(size)
    names = [label_space.classes[i] for i in shown]
    column = int(size * 2.6 + max(font.getlength(name) for name in names))
    columns = min(max((picture.width - size // 2) // column, 1), len(shown))
    rows = -(-len(shown) // columns)
    line = round(size * 1.6)
    result = Image.new("RGB", (picture.width, picture.height + rows * line + size), "white")
    result.paste(picture)
    draw = ImageDraw.Draw(result)
    for position, (index, name) in enumerate(zip(shown, names, strict=True)):
        # Down the columns, as one reads a list.
        x = size // 2 + position // rows * column
        y = picture.height + size // 2 + position % rows * line + line // 2
        swatch = (x, y - size // 2, x + size * 4 // 3, y + size // 2)
        draw.rectangle(swatch, fill=label_space.palette[index], outline=(90, 90, 90))
        draw.text((x + size * 1.8, y), name, fill=(20, 20, 20), font=font, anchor="lm")
    return result


def save_mask(mask: np.ndarray, label_space: LabelSpace, path: Path | str) -> None:
    """Write a (H, W) mask as an 8-bit palette PNG whose pixel values are the class indices, 255 if ignored.

    `np.asarray(PIL.Image.open(path))` gives the mask back. OpenCV applies the palette: its `imread` gives
    the colours, and with `IMREAD_GRAYSCALE` their grey values; neither are class indices.

    Raises:
        InputError: when the mask is not (H, W) class indices, or the path does not end in .png.
    """
    if Path(path).suffix.lower() != ".png":
        raise InputError(f"{path}: a mask is saved as .png, which keeps class indices exactly")
    picture = Image.fromarray(_checked(mask, label_space)).convert("P")
    picture.putpalette(label_space.colours().tobytes())
    with replacing(path) as temporary:
        picture.save(temporary, format="PNG")


def _checked(mask: np.ndarray, label_space: LabelSpace) -> np.ndarray:
    """The mask as (H, W) uint8, once it is sure that nothing in it means something else."""
    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.dtype.kind not in "iu":
        raise InputError(f"a mask is (H, W) integers; got shape {mask.shape} of {mask.dtype}")
    stray = mask >= label_space.num_classes
    stray &= mask != IGNORE_INDEX
    if mask.dtype.kind == "i":
        stray |= mask < 0
    if stray.any():
        raise InputError(
            f"mask value {mask[stray][0]} is not one of the {label_space.num_classes} classes "
            f"of {label_space.name!r}, nor {IGNORE_INDEX} (ignored)"
        )
    return mask.astype(np.uint8, copy=False)


def _as_rgb(image: np.ndarray | Image.Image) -> Image.Image:
    if not isinstance(image, Image.Image):
        image = Image.fromarray(_checked_image(image))
    return image if image.mode == "RGB" else image.convert("RGB")


def _checked_image(image: np.ndarray) -> np.ndarray:
    if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)):
        raise InputError(f"an image is (H, W, 3) or (H, W) uint8; got shape {image.shape} of {image.dtype}")
    return image
