"""Contact sheets of activations and filters: each tile scaled by itself, in numpy and PIL alone but for the colours."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fcnseg.errors import InputError

MOST = 64
"""Tiles on a sheet, unless more are asked for."""

LARGEST = 1024
"""Tiles on a sheet at most."""

_WIDE, _GAP, _TYPE, _COLUMNS, _INPUTS = 128, 8, 13, 8, 16
_DARK, _GREY = (25, 25, 25), (110, 110, 110)


def activation_sheet(maps: np.ndarray, layer: str, most: int = MOST) -> Image.Image:
    """The maps of a layer that differ most over the image, the strongest first, with the numbers of their channels.

    Each goes from dark at its least value to bright at its greatest, which stand below it; a map of one value is dark.

    Args:
        maps: (channels, h, w) floats, as `activations` gives them.
        layer: their layer's name, for the title.
        most: of them are shown.

    Raises:
        InputError: for a number out of range.
    """
    _require(most)
    chosen = np.argsort(-maps.std((1, 2)), kind="stable")[:most].tolist()
    tiles = [_painted(_unit(maps[i]), "viridis") for i in chosen]
    captions = [f"{i}: {maps[i].min():.3g} to {maps[i].max():.3g}" for i in chosen]
    which = "all" if len(chosen) == len(maps) else f"{len(chosen)} of"
    title = f"{layer}: {which} {len(maps)} channels at {maps.shape[1]}x{maps.shape[2]}, those that vary most first"
    return _sheet(tiles, captions, title, _COLUMNS)


def filter_sheet(weights: np.ndarray, layer: str, colours: bool = False, most: int = MOST) -> Image.Image:
    """The filters of a convolution, those of the greatest norm first.

    Each is scaled by its own greatest weight, so that no weight is grey, or white. With colours a filter is one RGB
    picture; else it is a row of its kernels, red above 0 and blue below, one for each of the inputs that weigh most.

    Args:
        weights: (outputs, inputs, k, k) floats, as `filters` gives them.
        layer: their layer's name, for the title.
        colours: whether the inputs are red, green and blue.
        most: tiles are shown.

    Raises:
        InputError: for a number out of range.
    """
    _require(most)
    outputs, inputs, side = weights.shape[:3]
    columns = _COLUMNS if colours else min(inputs, _INPUTS)
    chosen = np.argsort(-np.linalg.norm(weights.reshape(outputs, -1), axis=1), kind="stable")
    chosen = chosen[: most if colours else max(most // columns, 1)]
    scaled = 0.5 + weights[chosen] / (2 * np.abs(weights[chosen]).max((1, 2, 3), keepdims=True).clip(1e-12))
    title = f"{layer}: {len(chosen)} of {outputs} filters of {side}x{side}, by their norm"
    if colours:
        tiles = [np.rint(each.transpose(1, 2, 0) * 255).astype(np.uint8) for each in scaled]
        return _sheet(tiles, [str(i) for i in chosen], title, columns)
    heaviest = np.argsort(-np.linalg.norm(weights[chosen].transpose(1, 0, 2, 3).reshape(inputs, -1), axis=1))[:columns]
    tiles = [_painted(each[i], "RdBu_r") for each in scaled for i in heaviest]
    captions = [f"{output}, {i}" for output in chosen for i in heaviest]
    return _sheet(
        tiles,
        captions,
        f"{title}, each over {len(heaviest)} of {inputs} inputs (output, input)",
        columns,
        wide=_WIDE // 2,
    )


def _require(most: int) -> None:
    if isinstance(most, bool) or not isinstance(most, int) or not 1 <= most <= LARGEST:
        raise InputError(f"maps={most}: expected a number from 1 to {LARGEST}")


def _unit(values: np.ndarray) -> np.ndarray:
    """From 0 at the least value to 1 at the greatest."""
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def _painted(unit: np.ndarray, colours: str) -> np.ndarray:
    from matplotlib import colormaps

    return np.rint(colormaps[colours](unit)[..., :3] * 255).astype(np.uint8)


def _sheet(
    tiles: Sequence[np.ndarray], captions: Sequence[str], title: str, columns: int, wide: int = _WIDE
) -> Image.Image:
    font, heading = ImageFont.load_default(_TYPE), ImageFont.load_default(_TYPE + 3)
    columns = min(columns, len(tiles))
    pictures = [_sized(tile, wide) for tile in tiles]
    cell = wide + _GAP, pictures[0].height + _TYPE + _GAP + 4
    top = _TYPE + 3 + 2 * _GAP
    width = max(columns * cell[0] + _GAP, int(heading.getlength(title)) + 2 * _GAP)
    sheet = Image.new("RGB", (width, top + -(-len(tiles) // columns) * cell[1] + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, _GAP), title, fill=_DARK, font=heading)
    for number, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        x, y = _GAP + number % columns * cell[0], top + number // columns * cell[1]
        sheet.paste(picture, (x + (wide - picture.width) // 2, y))
        draw.text((x + wide // 2, y + picture.height + 3), caption, fill=_GREY, font=font, anchor="ma")
    return sheet


def _sized(tile: np.ndarray, wide: int) -> Image.Image:
    """As wide as it may be; samples stay squares where they are few, and are averaged where they are many."""
    height, width = tile.shape[:2]
    scale = wide / max(width, height)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    method = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX
    return Image.fromarray(tile).resize(size, method)
