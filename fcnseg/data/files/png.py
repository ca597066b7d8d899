"""Intact PNG files of whole bytes, not interlaced, decoded in less time than PIL and OpenCV take for the file itself.

libdeflate inflates the pixels; then libpng undoes the filters of their rows: imagecodecs' (the extra `fast`), which
has vector instructions for that, or OpenCV's. Either is given a PNG of nothing but its header and stored pixels. So no
gamma, profile or transparency, in which releases differ, reaches it, and of several channels only what is asked for.

W3C, Portable Network Graphics (PNG) Specification, third edition, 2025: chunks in section 5, filters in section 9.
"""

import struct
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from deflate import DeflateError, adler32, crc32, zlib_decompress

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER = struct.Struct(">IIBBBBB")
"""Width, height, bits of a sample, colour type, and compression, filters and interlacing."""

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
SAMPLES = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}

BEHIND = {b"tEXt", b"tIME", b"IEND"}
"""Chunks that say nothing of the picture where they stand behind it."""

STORED = 2**16 - 1
"""Bytes of a block that is not compressed, by RFC 1951 at most; each gets a chunk, whose length OpenCV bounds."""


def read_png(path: Path, channel: int | None = None) -> np.ndarray | None:
    """The samples of a PNG as they stand in it, uint8 or uint16; of a palette, indices.

    Args:
        path: of any file.
        channel: one to read alone, counted from 0.

    Returns:
        (H, W, C), C being 1 for a single channel; None for a file that is damaged in any way, or of another kind.
    """
    try:
        header, packed = _contents(path.read_bytes())
        width, height, bits, colour, *rest = HEADER.unpack(header)
        count = SAMPLES[colour]
        if bits not in (8, 16) or any(rest) or not (channel is None or 0 <= channel < count):
            return None
        line = 1 + width * count * bits // 8
        rows = np.frombuffer(zlib_decompress(packed, height * line), np.uint8).reshape(height, line)
        if rows[:, 0].max() > 4:  # there is no such filter
            return None
        if channel is not None and count > 1:
            rows, colour = _only(rows, channel, count, bits // 8), GREY
        kept = 8 * (rows.shape[1] - 1) // (width * SAMPLES[colour])
        samples = _unfiltered(rows, width, kept, GREY if colour == PALETTE else colour)
        return samples.astype(f"uint{bits}", copy=False)
    except (DeflateError, struct.error, KeyError, ValueError, RuntimeError, cv2.error):
        return None


def _contents(data: bytes) -> tuple[bytes, bytes]:
    """The header of a PNG and its compressed pixels.

    Raises:
        ValueError: when it is damaged, or there is more to it than a picture.
    """
    chunks = list(_chunks(data))
    kinds = [kind for kind, _ in chunks]
    if kinds[:1] != [b"IHDR"] or kinds[-1:] != [b"IEND"] or b"acTL" in kinds or kinds.count(b"IHDR") > 1:
        raise ValueError("no picture alone")
    pixels = list(dropwhile(lambda chunk: chunk[0] != b"IDAT", chunks))
    packed = [content for _, content in takewhile(lambda chunk: chunk[0] == b"IDAT", pixels)]
    if any(kind not in BEHIND or bytes(content[:16]) == b"Raw profile type" for kind, content in pixels[len(packed) :]):
        raise ValueError("what stands behind the picture may say how it is to be shown")
    return bytes(chunks[0][1]), b"".join(packed)


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Kind and content of every chunk, up to the end of the file.

    Raises:
        ValueError, struct.error: when a checksum is wrong, or the file no PNG or cut off.
    """
    if not data.startswith(SIGNATURE):
        raise ValueError("no PNG")
    view, place = memoryview(data), len(SIGNATURE)
    while place < len(data):
        (length,) = struct.unpack_from(">I", data, place)
        end = place + 8 + length
        (checksum,) = struct.unpack_from(">I", data, end)
        if crc32(view[place + 4 : end]) != checksum:
            raise ValueError("damaged")
        yield bytes(view[place + 4 : place + 8]), view[place + 8 : end]
        place = end + 4


def _only(rows: np.ndarray, channel: int, count: int, size: int) -> np.ndarray:
    """Filtered rows of one of `count` channels of `size` bytes: filters work on each byte of a sample by itself.

    Of samples of two bytes the second alone where the first is 0, as in SYNTHIA's labels.
    """
    planes = [rows[:, 1 + channel * size + byte :: count * size] for byte in range(size)]
    if size == 2 and not planes[0].any():
        planes = planes[1:]
    kept = np.empty((len(rows), 1 + len(planes) * planes[0].shape[1]), np.uint8)
    kept[:, 0] = rows[:, 0]
    for byte, plane in enumerate(planes, start=1):
        kept[:, byte :: len(planes)] = plane
    return kept


def _unfiltered(rows: np.ndarray, width: int, bits: int, colour: int) -> np.ndarray:
    """(H, W, C) samples of filtered rows."""
    picture = _stored(rows, width, bits, colour)
    if (imagecodecs := _imagecodecs()) is not None:
        return imagecodecs.png_decode(picture).reshape(len(rows), width, SAMPLES[colour])
    pixels = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ValueError("OpenCV cannot read it")
    if colour == RGB:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    elif colour == RGBA:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA)
    elif colour == GREY_ALPHA:  # which OpenCV spreads over four channels
        pixels = np.ascontiguousarray(pixels[..., [0, 3]])
    return pixels.reshape(len(rows), width, SAMPLES[colour])


@cache
def _imagecodecs() -> Any:
    """The package, if it is installed and has PNG in it."""
    try:
        package = import_module("imagecodecs")
        return package if package.PNG.available else None
    except (ImportError, AttributeError):
        return None


def _stored(rows: np.ndarray, width: int, bits: int, colour: int) -> bytes:
    """A PNG of filtered rows, not compressed."""
    raw = np.ascontiguousarray(rows).reshape(-1).data
    parts = [SIGNATURE, *_chunk(b"IHDR", HEADER.pack(width, len(rows), bits, colour, 0, 0, 0))]
    parts += _chunk(b"IDAT", b"\x78\x01")  # the head of a zlib stream, see RFC 1950
    for start in range(0, len(raw), STORED):
        block = raw[start : start + STORED]
        last = start + STORED >= len(raw)
        parts += _chunk(b"IDAT", struct.pack("<BHH", last, len(block), len(block) ^ STORED), block)
    parts += _chunk(b"IDAT", struct.pack(">I", adler32(raw)))
    return b"".join([*parts, *_chunk(b"IEND")])


def _chunk(kind: bytes, *contents: bytes | memoryview) -> list[bytes | memoryview]:
    checksum = crc32(kind)
    for content in contents:
        checksum = crc32(content, checksum)
    return [struct.pack(">I", sum(map(len, contents))), kind, *contents, struct.pack(">I", checksum)]
