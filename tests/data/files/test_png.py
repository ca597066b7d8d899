"""Plain PNGs: every sample as it was written, and nothing else read or refused than PIL and OpenCV do.

The files are written here byte by byte as the specification has it, with each kind of filter, in any row.
"""

import struct
import sys
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from fcnseg.data.files import images, png
from fcnseg.data.files.images import read_image, read_label
from fcnseg.data.files.png import GREY, GREY_ALPHA, PALETTE, RGB, RGBA, SAMPLES, read_png
from fcnseg.errors import InputError
from tests.data.refusals import complaint

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # on damaged files

DEPTHS = {GREY: (1, 2, 4, 8, 16), RGB: (8, 16), PALETTE: (1, 2, 4, 8), GREY_ALPHA: (8, 16), RGBA: (8, 16)}
KINDS = [(colour, bits) for colour, depths in DEPTHS.items() for bits in depths]
PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""First row and column, and steps, of the seven parts of an interlaced picture."""


@pytest.fixture(params=["imagecodecs", "opencv"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if request.param == "imagecodecs":
        pytest.importorskip("imagecodecs")
    else:
        monkeypatch.setitem(sys.modules, "imagecodecs", None)  # what Python does for a module that cannot be imported
    png._imagecodecs.cache_clear()
    yield
    png._imagecodecs.cache_clear()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def filtered(samples: np.ndarray, bits: int, filters: list[int]) -> bytes:
    """The rows of (H, W, C) samples as bytes, each behind the number of its filter."""
    if 0 in samples.shape:
        return b""
    step = max(1, samples.shape[2] * bits // 8)
    if bits == 16:
        rows = samples.astype(">u2").reshape(len(samples), -1).view(np.uint8)
    else:
        spread = np.unpackbits(samples.astype(np.uint8)[..., None], axis=-1)[..., 8 - bits :]
        rows = np.packbits(spread.reshape(len(samples), -1), axis=1)
    rows = rows.astype(int)
    above = np.vstack([np.zeros_like(rows[:1]), rows[:-1]])
    left, corner = (np.hstack([np.zeros((len(a), step), int), a])[:, : a.shape[1]] for a in (rows, above))
    guess = left + above - corner
    near = np.abs(guess - np.stack([left, above, corner]))
    paeth = np.choose(near.argmin(axis=0), [left, above, corner])
    predicted = [0 * rows, left, above, (left + above) // 2, paeth]
    return b"".join(
        bytes([kind, *((row - predicted[kind][y]) % 256)])
        for y, (row, kind) in enumerate(zip(rows, np.resize(filters, len(rows)).tolist(), strict=True))
    )


def written(
    samples: np.ndarray,
    colour: int,
    bits: int,
    filters: list[int],
    interlaced: bool = False,
    before: bytes = b"",
    behind: bytes = b"",
    pieces: int = 1,
    level: int = 6,
) -> bytes:
    """A PNG of (H, W, C) samples, with other chunks before and behind its pixels."""
    height, width, _ = samples.shape
    parts = [samples[top::down, left::right] for top, left, down, right in PASSES] if interlaced else [samples]
    packed = zlib.compress(b"".join(filtered(part, bits, filters) for part in parts), level)
    cuts = np.linspace(0, len(packed), pieces + 1).astype(int)
    pixels = b"".join(chunk(b"IDAT", packed[a:b]) for a, b in pairwise(cuts))
    header = chunk(b"IHDR", png.HEADER.pack(width, height, bits, colour, 0, 0, interlaced))
    return png.SIGNATURE + header + before + pixels + behind + chunk(b"IEND", b"")


def orientation(number: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = number
    return exif.tobytes().removeprefix(b"Exif\0\0")


PROFILE = zlib.compress(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
ANCILLARY = {
    "gamma": chunk(b"gAMA", struct.pack(">I", 100000)),
    "white": chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)),
    "sRGB": chunk(b"sRGB", b"\1"),
    "profile": chunk(b"iCCP", b"icc\0\0" + PROFILE),
    "light": chunk(b"cICP", bytes([9, 16, 0, 1])),
    "size": chunk(b"pHYs", struct.pack(">IIB", 2835, 2835, 1)),
    "text": chunk(b"tEXt", b"Comment\0a street"),
}


def transparency(colour: int, bits: int) -> bytes:
    if colour == PALETTE:
        return chunk(b"tRNS", bytes([0, 128]))
    return chunk(b"tRNS", struct.pack(f">{SAMPLES[colour]}H", *[3] * SAMPLES[colour]))


@st.composite
def pictures(draw: st.DrawFn) -> tuple[bytes, np.ndarray, int, int, bool, list[str]]:
    """A PNG of any kind: its bytes, samples, colour type and bits, whether it is interlaced, and its other chunks."""
    colour, bits = draw(st.sampled_from(KINDS))
    height, width = draw(st.integers(1, 11)), draw(st.integers(1, 11))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    known = draw(st.integers(1, 2**bits)) if colour == PALETTE else 2**bits
    largest = draw(st.sampled_from([2**bits, min(2**bits, 256)]))  # the first bytes of 16 bits may all be 0
    samples = rng.integers(0, largest, (height, width, SAMPLES[colour]), np.uint16)
    filters = draw(st.lists(st.integers(0, 4), min_size=1, max_size=height))
    more = draw(st.lists(st.sampled_from([*ANCILLARY, "transparency", "turned", "behind", "comment"]), unique=True))
    before = b"".join(ANCILLARY.get(name, b"") for name in more)
    if colour == PALETTE:
        before += chunk(b"PLTE", rng.integers(0, 256, 3 * known, np.uint8).tobytes())
    if "transparency" in more and colour in (GREY, RGB, PALETTE):
        before += transparency(colour, bits)
    turned = chunk(b"eXIf", orientation(draw(st.integers(1, 8))))
    before += turned if "turned" in more else b""
    behind = (chunk(b"tEXt", b"Comment\0seen") if "comment" in more else b"") + (turned if "behind" in more else b"")
    interlaced = draw(st.booleans()) and draw(st.booleans())
    options = {"pieces": draw(st.integers(1, 3)), "level": draw(st.sampled_from([0, 1, 9]))}
    content = written(samples, colour, bits, filters, interlaced, before, behind, **options)
    return content, samples, colour, bits, interlaced, more


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(picture=pictures())
@pytest.mark.usefixtures("decoder")
def test_every_png_is_read_as_it_was_written_and_as_pil_reads_it(
    tmp_path: Path, picture: tuple[bytes, np.ndarray, int, int, bool, list[str]]
) -> None:
    content, samples, colour, bits, interlaced, more = picture
    file = tmp_path / "a.png"
    file.write_bytes(content)
    plain = read_png(file)
    if bits < 8 or interlaced or "behind" in more:
        assert plain is None
    else:
        assert plain is not None
        assert plain.dtype == f"uint{bits}"
        assert plain.flags.c_contiguous
        assert np.array_equal(plain, samples)
        for channel in range(SAMPLES[colour]):
            assert np.array_equal(read_png(file, channel), samples[..., channel : channel + 1])
        assert read_png(file, SAMPLES[colour]) is None
    if bits <= 8:
        with Image.open(file) as image:
            expected = ImageOps.exif_transpose(image.convert("RGB"))
        assert np.array_equal(read_image(file), expected)
    assert outcomes(file) == outcomes_without(file)


def outcomes(file: Path) -> list[object]:
    """What each way to read a file gives or says."""
    calls = [*((read_image, {"channels": c}) for c in (1, 2, 3, 4)), (read_label, {})]
    return [outcome(call, file, options) for call, options in [*calls, *((read_label, {"channel": c}) for c in (0, 1))]]


def outcome(call: object, file: Path, options: dict[str, int]) -> object:
    try:
        values = call(file, **options)  # type: ignore[operator]
    except InputError as error:
        return str(error)
    assert values.flags.writeable
    return values.dtype, values.shape, values.tobytes()


def outcomes_without(file: Path) -> list[object]:
    """The same with PIL and OpenCV alone, as they read what is no plain PNG."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "read_png", lambda *_: None)
        return outcomes(file)


def noise(*shape: int, bits: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2**bits, shape, np.uint16)


@pytest.mark.parametrize(("colour", "bits"), [(RGB, 8), (RGB, 16), (GREY, 8)])
def test_whatever_byte_is_damaged_the_file_is_read_as_before_or_refused_as_before(
    tmp_path: Path, colour: int, bits: int
) -> None:
    file = tmp_path / "a.png"
    whole = written(noise(3, 4, SAMPLES[colour], bits=bits), colour, bits, [4, 1], behind=ANCILLARY["text"])
    file.write_bytes(whole)
    assert read_png(file) is not None
    contents = [whole[:end] for end in range(len(whole))]
    contents += [whole[:i] + bytes([whole[i] ^ 1 << i % 8]) + whole[i + 1 :] for i in range(len(whole))]
    for content in contents:
        file.write_bytes(content)
        assert read_png(file) is None
        assert outcomes(file) == outcomes_without(file)
    file.write_bytes(whole[: len(whole) // 2])
    assert complaint(lambda: read_label(file, channel=0)).startswith(f"{file}: cannot be read as an image (")


@pytest.mark.parametrize(
    "damage", ["filter", "rows", "more rows", "sum", "no pixels", "two pictures", "tail", "moving"]
)
def test_files_with_right_checksums_that_are_wrong_all_the_same_are_left_to_others(tmp_path: Path, damage: str) -> None:
    samples = noise(6, 5, 3)
    rows = filtered(samples, 8, [0])
    packed = {
        "filter": zlib.compress(rows[:-16] + b"\5" + rows[-15:]),
        "rows": zlib.compress(rows[:-16]),
        "sum": zlib.compress(rows)[:-1] + b"\0",
    }.get(damage, zlib.compress(rows))
    parts = [png.SIGNATURE, chunk(b"IHDR", png.HEADER.pack(5, 6 - (damage == "more rows"), 8, RGB, 0, 0, 0))]
    parts += [chunk(b"acTL", struct.pack(">II", 1, 0))] if damage == "moving" else []
    parts += [] if damage == "no pixels" else [chunk(b"IDAT", packed)]
    parts += [ANCILLARY["text"], chunk(b"IDAT", packed)] if damage == "two pictures" else []
    parts += [chunk(b"IEND", b""), b"tail" if damage == "tail" else b""]
    file = tmp_path / "a.png"
    file.write_bytes(b"".join(parts))
    assert read_png(file) is None
    assert outcomes(file) == outcomes_without(file)
    if damage == "no pixels":
        assert complaint(lambda: read_image(file)) == f"{file}: cannot be read as an image (it has no pixels)"


def test_a_palette_without_colours_and_one_with_too_few_are_as_pil_shows_them(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    for palette in (b"", chunk(b"PLTE", bytes(range(9)))):
        file.write_bytes(written(noise(6, 5, 1), PALETTE, 8, [0], before=palette))
        assert read_png(file) is not None
        assert outcomes(file) == outcomes_without(file)


@pytest.mark.usefixtures("decoder")
def test_threads_read_what_one_does(tmp_path: Path) -> None:
    """Large enough for several chunks of several blocks."""
    smooth = np.cumsum(noise(900, 701, 3) % 3, axis=0).astype(np.uint8)
    file = tmp_path / "a.png"
    Image.fromarray(smooth).save(file)
    with ThreadPoolExecutor(4) as pool:
        for read in pool.map(read_png, [file] * 8):
            assert np.array_equal(read, smooth)
