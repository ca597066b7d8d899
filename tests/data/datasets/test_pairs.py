"""Reading image and label files of every kind, and every mistake a user's folders can hold."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from fcnseg.data.datasets.pairs import PairedFiles, PairedFolder
from fcnseg.data.files.images import read_image, read_label
from fcnseg.data.files.listing import list_images, require_folder
from fcnseg.data.inspection.samples import InspectedSplit, examine
from fcnseg.errors import InputError
from fcnseg.labels import LabelSpace
from tests.data.refusals import complaint

SPACE = LabelSpace("three", ("a", "b", "c"), ((255, 0, 0), (0, 255, 0), (0, 0, 255)))
LABEL = np.array([[0, 1, 2, 255], [2, 2, 1, 0]], np.uint8)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def encoded(image: np.ndarray, kind: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, kind)
    return stream.getvalue()


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Folders images/ and labels/ with samples one, two and three."""
    images, labels = tmp_path / "images", tmp_path / "labels"
    images.mkdir()
    labels.mkdir()
    for seed, name in enumerate(("one", "two", "three")):
        Image.fromarray(noise(2, 4, 3, seed=seed)).save(images / f"{name}.png")
        Image.fromarray(np.roll(LABEL, seed, axis=1)).save(labels / f"{name}.png")
    return images, labels


# Reading


def test_samples_are_the_files_pixels_in_the_order_of_their_names(pair: tuple[Path, Path]) -> None:
    dataset = PairedFolder(*pair, SPACE)
    assert [dataset[i][2] for i in range(len(dataset))] == ["one", "three", "two"]
    for index, seed in enumerate((0, 2, 1)):
        image, mask, _ = dataset[index]
        assert np.array_equal(image, noise(2, 4, 3, seed=seed))
        assert np.array_equal(mask, np.roll(LABEL, seed, axis=1))
        assert np.array_equal(dataset.mask(index), mask)
        assert image.dtype == mask.dtype == np.uint8


def test_pairs_may_end_differently_and_other_files_do_not_count(pair: tuple[Path, Path]) -> None:
    images, labels = pair
    (images / "one.png").unlink()
    Image.fromarray(np.full((2, 4, 3), 90, np.uint8)).save(images / "one.JPG")
    Image.fromarray(LABEL).save(labels / "without_image.png")
    (images / "notes.txt").write_text("not an image")
    (images / "thumbnails.png").mkdir()
    dataset = PairedFolder(images, labels, SPACE)
    assert [path.name for path in dataset.images] == ["one.JPG", "three.png", "two.png"]
    assert dataset[0][0].tolist() == np.full((2, 4, 3), 90).tolist()


def test_hidden_and_temporary_files_are_no_samples(pair: tuple[Path, Path]) -> None:
    images, labels = pair
    for folder in pair:
        for name in ("._one.png", ".one.png.A1b2C3", ".hidden.png", "~$two.png"):
            (folder / name).write_bytes(b"no picture")
        for name in ("__MACOSX", ".ipynb_checkpoints", "@eaDir"):
            (folder / name).mkdir()
            (folder / name / "one.png").write_bytes(b"no picture")
    for recursive in (False, True):
        dataset = PairedFolder(images, labels, SPACE, recursive=recursive)
        assert [dataset[i][2] for i in range(len(dataset))] == ["one", "three", "two"]


def test_images_and_labels_of_one_folder_pair_by_a_pattern_that_is_suggested(tmp_path: Path) -> None:
    for i in range(3):
        Image.fromarray(noise(2, 4, 3, seed=i)).save(tmp_path / f"{i}.png")
        Image.fromarray(np.roll(LABEL, i, axis=1)).save(tmp_path / f"{i}_mask.png")
    dataset = PairedFolder(tmp_path, tmp_path, SPACE, label_names="*_mask")
    assert [dataset[i][2] for i in range(len(dataset))] == ["0", "1", "2"]
    assert all(np.array_equal(dataset[i][1], np.roll(LABEL, i, axis=1)) for i in range(3))
    assert complaint(lambda: PairedFolder(tmp_path, tmp_path, SPACE)) == (
        f"{tmp_path}: images and labels in one folder; 'label_names=*_mask' pairs 3 of them"
    )
    (tmp_path / "labels").mkdir()
    for i in range(3):
        (tmp_path / f"{i}_mask.png").rename(tmp_path / "labels" / f"{i}_mask.png")
    message = complaint(lambda: PairedFolder(tmp_path, tmp_path / "labels", SPACE))
    assert message.endswith("(3 images have none); 'label_names=*_mask' pairs 3 of them")


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_labels_are_read_as_indices(tmp_path: Path, bits: int) -> None:
    indices = (np.arange(8).reshape(2, 4) % 2**bits).astype(np.uint8)
    label = Image.fromarray(indices).convert("L")
    label = Image.frombytes("P", label.size, label.tobytes())
    label.putpalette([200, 10, 10, 5, 5, 5, 5, 5, 5, 7, 200, 90] * 4)  # classes 1 and 2 even share a colour
    label.save(tmp_path / "label.png", bits=bits)
    with Image.open(tmp_path / "label.png") as again:
        assert again.mode == "P"
    assert np.array_equal(read_label(tmp_path / "label.png"), indices)


def test_16_bit_labels_keep_their_values(tmp_path: Path) -> None:
    values = np.array([[0, 255, 256], [4660, 40000, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "label.png")
    with Image.open(tmp_path / "label.png") as again:
        assert again.mode == "I;16"
    assert read_label(tmp_path / "label.png").tolist() == values.tolist()


def test_two_valued_labels_are_classes_0_and_1(tmp_path: Path) -> None:
    Image.fromarray(np.array([[True, False], [False, False]])).save(tmp_path / "label.png")
    assert read_label(tmp_path / "label.png").tolist() == [[1, 0], [0, 0]]


def test_images_of_every_mode_become_rgb(tmp_path: Path) -> None:
    grey, alpha, four = noise(5, 7), noise(5, 7, 4), noise(5, 7, 4, seed=1)
    palette = noise(256, 3, seed=2)
    indexed = Image.frombytes("P", (7, 5), grey.tobytes())
    indexed.putpalette(palette.tobytes())
    files: dict[str, tuple[Image.Image, np.ndarray]] = {
        "L.png": (Image.fromarray(grey), np.stack([grey] * 3, axis=2)),
        "RGBA.png": (Image.fromarray(alpha), alpha[..., :3]),
        "P.png": (indexed, palette[grey]),
        "1.png": (Image.fromarray(grey > 99), np.stack([(grey > 99) * 255] * 3, axis=2)),
        "CMYK.tif": (
            Image.frombytes("CMYK", (7, 5), four.tobytes()),
            (255.0 - four[..., :3]) * (255.0 - four[..., 3:]) / 255,
        ),
    }
    for name, (image, rgb) in files.items():
        image.save(tmp_path / name)
        with Image.open(tmp_path / name) as again:
            assert again.mode == name.split(".")[0]
        read = read_image(tmp_path / name)
        assert read.dtype == np.uint8
        assert read.shape == (5, 7, 3)
        assert np.abs(read - rgb.astype(float)).max() <= (1 if "CMYK" in name else 0), name


@pytest.mark.parametrize("values", [np.arange(35, dtype=np.uint16) * 1000, np.arange(35, dtype=np.float32)])
def test_images_of_more_than_8_bits_are_refused_rather_than_cut_off(tmp_path: Path, values: np.ndarray) -> None:
    path = tmp_path / "deep.tif"
    Image.fromarray(values.reshape(5, 7)).save(path)
    assert complaint(lambda: read_image(path)).startswith(f"{path}: image has")


def test_two_files_that_differ_in_their_ending_alone_cannot_be_paired(pair: tuple[Path, Path]) -> None:
    images, labels = pair
    for folder in (labels, images):
        Image.fromarray(LABEL).save(folder / "one.bmp")
        message = complaint(lambda: PairedFolder(images, labels, SPACE))
        assert message.startswith(f"{folder / 'one.png'}: one.bmp has the same name but for its ending")
        (folder / "one.bmp").unlink()


# Folders that are not what the user thinks


def test_a_missing_folder_is_named_with_the_nearest_names(pair: tuple[Path, Path]) -> None:
    images, labels = pair
    wrong = images.parent / "image"
    expected = f"{wrong}: no such folder; did you mean images?"
    assert complaint(lambda: PairedFolder(wrong, labels, SPACE)) == expected
    far = images.parent / "elsewhere" / "deeper"
    assert complaint(lambda: require_folder(far)) == f"{far}: no such folder"


def test_a_file_is_no_folder(pair: tuple[Path, Path]) -> None:
    file = pair[0] / "one.png"
    assert complaint(lambda: PairedFolder(file, pair[1], SPACE)) == f"{file}: expected a folder, found a file"


def test_a_folder_without_images_says_what_counts_as_one(pair: tuple[Path, Path], tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "readme.txt").write_text("hello")
    (empty / "archive.png").mkdir()
    for call in (lambda: PairedFolder(pair[0], empty, SPACE), lambda: list_images(empty)):
        message = complaint(call)
        assert message.startswith(f"{empty}: no images; expected files ending in .bmp, .jpeg, .jpg, .png")


@pytest.mark.parametrize(
    ("without", "first", "others"),
    [
        (("two",), "two", ""),
        (("two", "three"), "three", " (2 images have none)"),
        (("one", "two", "three"), "one", " (3 images have none)"),
    ],
)
def test_images_without_labels_are_counted(
    pair: tuple[Path, Path], without: tuple[str, ...], first: str, others: str
) -> None:
    images, labels = pair
    Image.fromarray(LABEL).save(labels / "another.png")
    for name in without:
        (labels / f"{name}.png").unlink()
    message = complaint(lambda: PairedFolder(images, labels, SPACE))
    start = f"{images / first}.png: no label of that name in {labels}"
    assert message.startswith(start + others)
    assert others or message == start


# Files that are not what the user thinks


def test_a_label_of_another_size_is_refused(pair: tuple[Path, Path]) -> None:
    file = pair[1] / "one.png"
    Image.fromarray(LABEL.T.copy()).save(file)
    message = complaint(lambda: PairedFolder(*pair, SPACE)[0])
    assert message == f"{file}: label is 2x4, its image 4x2; expected the same size"


def test_a_label_value_outside_the_label_space_is_named(pair: tuple[Path, Path]) -> None:
    file = pair[1] / "one.png"
    Image.fromarray(np.where(LABEL == 1, 19, LABEL)).save(file)
    dataset = PairedFolder(*pair, SPACE)
    for call in (lambda: dataset[0], lambda: dataset.mask(0)):
        message = complaint(call)
        assert message.startswith(f"{file}: label value 19 is outside the label space 'three' (classes 0 to 2")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "CMYK", "F"])
def test_a_label_of_several_channels_is_refused(pair: tuple[Path, Path], mode: str) -> None:
    images, labels = pair
    (labels / "one.png").unlink()
    file = labels / ("one.png" if mode in ("RGB", "RGBA", "LA") else "one.tif")
    Image.fromarray(LABEL).convert(mode).save(file)
    message = complaint(lambda: PairedFolder(images, labels, SPACE)[0])
    expected = f"{file}: label is a {mode} image; expected one channel of class indices, or label_channel=0 "
    assert message == expected + "for those in the first channel, or labels_as=colour for colours"


def test_a_label_with_values_below_zero_or_beyond_16_bits_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "label.tif"
    for values, shown in (([[3, -1]], "-1 to 3"), ([[3, 70000]], "3 to 70000")):
        Image.fromarray(np.array(values, np.int32)).save(file)
        assert complaint(lambda: read_label(file)) == f"{file}: label values {shown}; expected 0 to 65535"


def bomb() -> bytes:
    """A PNG of 100 bytes that declares 40000x40000 pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 40000, 40000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


PNG = encoded(noise(40, 40), "PNG")
BROKEN = {
    "zero bytes": b"",
    "text": b"the picture is on the other disk\n",
    "html": b"<!DOCTYPE html>\n<html>\n404\n</html>\n",
    "header only": PNG[:30],
    "truncated": PNG[: len(PNG) // 2],
    "damaged": PNG[:300] + bytes(60) + PNG[360:],
    "line ends converted": PNG.replace(b"\r\n", b"\n"),
    "truncated jpeg": encoded(noise(40, 40), "JPEG")[:700],
    "bomb": bomb(),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize("role", [0, 1], ids=["image", "label"])
def test_unreadable_files_are_named(pair: tuple[Path, Path], content: bytes, role: int) -> None:
    file = pair[role] / "one.png"
    file.write_bytes(content)
    message = complaint(lambda: PairedFolder(*pair, SPACE)[0])
    assert message.startswith(f"{file}: cannot be read as an image (")
    assert ("decompression bomb" in message) == (content == BROKEN["bomb"])


def test_files_that_vanish_after_listing_are_named(pair: tuple[Path, Path]) -> None:
    dataset = PairedFolder(*pair, SPACE)
    (pair[1] / "one.png").unlink()
    assert complaint(lambda: dataset[0]) == f"{pair[1] / 'one.png'}: no such file"
    (pair[0] / "one.png").unlink()
    (pair[0] / "one.png").mkdir()
    message = complaint(lambda: dataset[0])
    assert message.startswith(f"{pair[0] / 'one.png'}: cannot be read as an image (")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "WEBP"])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_randomly_damaged_files_are_read_or_refused_and_never_crash(tmp_path: Path, kind: str) -> None:
    random = np.random.default_rng(0)
    whole = encoded(noise(12, 12, 3), kind)
    file = tmp_path / "image.png"
    refused = read = 0
    for _ in range(100):
        damaged = bytearray(whole)
        for place in random.integers(0, min(len(whole), 300), 4):
            damaged[place] = random.integers(0, 256)
        file.write_bytes(damaged[: random.integers(1, 2 * len(whole))])
        try:
            read_image(file)
        except InputError as error:
            refused += str(error).startswith(f"{file}: ") and "\n" not in str(error)
        else:
            read += 1
    assert refused + read == 100
    assert refused > 10


# Options of reading


def test_labels_of_colours_become_the_classes_of_the_palette(pair: tuple[Path, Path]) -> None:
    images, labels = pair
    for file in labels.iterdir():
        values = np.asarray(Image.open(file))
        Image.fromarray(np.array([*SPACE.palette, *[(9, 9, 9)] * 253], np.uint8)[values]).save(file)
    dataset = PairedFolder(images, labels, SPACE, labels_as="colour", ignored_colours=[[9, 9, 9]])
    for index, seed in enumerate((0, 2, 1)):
        assert np.array_equal(dataset[index][1], np.roll(LABEL, seed, axis=1))
    without = PairedFolder(images, labels, SPACE, labels_as="colour")
    assert complaint(lambda: without.mask(0)) == (
        f"{labels / 'one.png'}: label has colours of no class: (9, 9, 9) on 1 pixel"
    )


def test_ids_of_a_label_space_need_not_be_its_positions_in_colour_labels(pair: tuple[Path, Path]) -> None:
    space = LabelSpace("ids", SPACE.classes, SPACE.palette, ids=(40, 7, 300), ignored_ids=(0,))
    images, labels = pair
    for file in labels.iterdir():
        values = np.asarray(Image.open(file))
        Image.fromarray(np.array([*SPACE.palette, *[(9, 9, 9)] * 253], np.uint8)[values]).save(file)
    dataset = PairedFolder(images, labels, space, labels_as="colour", ignored_colours=[(9, 9, 9)])
    assert np.array_equal(dataset.mask(0), LABEL)


def test_ids_in_one_channel_of_label_files(pair: tuple[Path, Path]) -> None:
    images, labels = pair
    for seed, name in enumerate(("one", "two", "three")):
        values = np.dstack([noise(2, 4), np.roll(LABEL, seed, axis=1), noise(2, 4)])
        Image.fromarray(values).save(labels / f"{name}.png")
    dataset = PairedFolder(images, labels, SPACE, label_channel=1)
    assert np.array_equal(dataset[0][1], LABEL)


def test_images_of_one_channel_and_their_logarithm(pair: tuple[Path, Path]) -> None:
    images, labels = pair
    amplitudes = np.array([[0, 1, 10, 100], [1000, 20, 5, 65535]], np.uint16)
    for file in images.iterdir():
        Image.fromarray(amplitudes).save(file)
    plain = PairedFolder(images, labels, SPACE, channels=1)
    assert plain[0][0].dtype == np.uint16
    assert np.array_equal(plain[0][0][..., 0], amplitudes)
    decibel = PairedFolder(images, labels, SPACE, channels=1, scaling="decibel")[0][0]
    assert decibel.dtype == np.float32
    assert decibel[0, :, 0] == pytest.approx([np.nan, 0, 20, 40], nan_ok=True)
    assert complaint(lambda: PairedFolder(images, labels, SPACE)[0]).endswith("expected 3; channels=1 reads it")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 0}, "channels=0: expected a whole number from 1 on"),
        ({"labels_as": "color"}, "labels_as='color': expected index or colour"),
        ({"scaling": "root"}, "scaling='root': expected one of log, decibel, decibel_intensity, or window:LEVEL:WIDTH"),
        (
            {"labels_as": "colour", "ignored_colours": [(255, 0, 0)]},
            "label space three: colour (255, 0, 0) means two things; labels_as=index needs none",
        ),
    ],
)
def test_settings_that_cannot_be_are_named_at_once(
    pair: tuple[Path, Path], options: dict[str, object], message: str
) -> None:
    assert complaint(lambda: PairedFolder(*pair, SPACE, **options)) == message


# Subfolders and lists


def test_subfolders_are_paired_by_their_paths(pair: tuple[Path, Path]) -> None:
    images, labels = pair
    for place, seed in (("aachen/day", 5), ("bremen", 6)):
        for root, pixels in ((images, noise(2, 4, 3, seed=seed)), (labels, np.roll(LABEL, seed, axis=1))):
            (root / place).mkdir(parents=True)
            Image.fromarray(pixels).save(root / place / "one.png")
    assert len(PairedFolder(images, labels, SPACE)) == 3
    dataset = PairedFolder(images, labels, SPACE, recursive=True)
    assert [dataset[i][2] for i in range(5)] == ["aachen/day/one", "bremen/one", "one", "three", "two"]
    for index, seed in ((0, 5), (1, 6), (2, 0)):
        assert np.array_equal(dataset[index][0], noise(2, 4, 3, seed=seed))
        assert np.array_equal(dataset[index][1], np.roll(LABEL, seed, axis=1))
    (labels / "bremen" / "one.png").unlink()
    message = complaint(lambda: PairedFolder(images, labels, SPACE, recursive=True))
    assert message == f"{images / 'bremen' / 'one.png'}: no label of that name in {labels}"


@pytest.mark.parametrize(
    "text",
    [
        "images/two.png,labels/one.png\nimages/one.png,labels/three.png\n",
        "image,label\nimages/two.png,labels/one.png\n\nimages/one.png,labels/three.png",
        "\ufeffLabel, split, Image\r\nlabels/one.png,a,images/two.png\r\nlabels/three.png,b,ROOT/images/one.png\r\n",
    ],
    ids=["plain", "header", "columns"],
)
def test_pairs_in_a_csv_file_keep_its_order(pair: tuple[Path, Path], text: str) -> None:
    file = pair[0].parent / "pairs.csv"
    file.write_text(text.replace("ROOT", str(file.parent)), encoding="utf-8", newline="")
    dataset = PairedFiles(file, SPACE)
    assert [dataset[i][2] for i in range(len(dataset))] == ["two", "one"]
    for index, (image, label) in enumerate(((1, 0), (0, 2))):
        assert np.array_equal(dataset[index][0], noise(2, 4, 3, seed=image))
        assert np.array_equal(dataset[index][1], np.roll(LABEL, label, axis=1))


def test_a_csv_file_names_files_of_its_folder_alone_unless_allowed(pair: tuple[Path, Path]) -> None:
    (pair[0].parent / "lists").mkdir()
    file = pair[0].parent / "lists" / "pairs.csv"
    for place in ("../images/one.png", str(pair[0] / "one.png")):
        file.write_text(f"{place},../labels/one.png\n", encoding="utf-8")
        message = complaint(lambda: PairedFiles(file, SPACE))
        assert message.startswith(f"{file}: names {file.parent / place}, which lies outside of its folder; where you")
        assert len(PairedFiles(file, SPACE, outside=True)) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"image,label\nimages/one.png\n", ", row 2: 1 columns; expected image,label"),
        (b"images/one.png,labels/one.png\na,b,c\n", ", row 2: 3 columns; expected image,label"),
        (b"image,label\n\nimages/one.png,labels/gone.png\n", ", row 3: ROOT/labels/gone.png: no such file"),
        (b"image,label\n", ": no pairs; expected rows of image,label"),
        (b"", ": no pairs; expected rows of image,label"),
        (b"\xff\xfe\x00,", ": cannot be read as CSV ('utf-8' codec"),
        (None, ": no such file"),
    ],
)
def test_mistakes_in_a_csv_file_are_named_with_their_row(
    pair: tuple[Path, Path], content: bytes | None, message: str
) -> None:
    file = pair[0].parent / "pairs.csv"
    if content is not None:
        file.write_bytes(content)
    expected = f"{file}{message}".replace("ROOT", str(file.parent))
    assert complaint(lambda: PairedFiles(file, SPACE)).startswith(expected)


def test_masks_ignore_what_is_no_data_in_the_image_or_the_label(tmp_path: Path) -> None:
    """A value in one, another in the other; what stands in the label there need be no class."""
    for folder, values, nodata in (("images", [[5, 0, 7, 8]], 0), ("labels", [[0, 99, 77, 1]], 77)):
        (tmp_path / folder).mkdir()
        options = {"height": 1, "width": 4, "count": 1, "dtype": "uint16", "nodata": nodata}
        with rasterio.open(tmp_path / folder / "a.tif", "w", driver="GTiff", **options) as file:
            file.write(np.array([values], np.uint16))
    dataset = PairedFolder(tmp_path / "images", tmp_path / "labels", SPACE, channels=1)
    image, mask, _ = dataset[0]
    np.testing.assert_array_equal(image[..., 0], [[5, np.nan, 7, 8]])
    assert mask.tolist() == [[0, 255, 255, 1]]
    assert dataset.mask(0).tolist() == mask.tolist()
    facts = examine(InspectedSplit("train", dataset), 0)
    assert (facts.problems, facts.pixels.tolist(), facts.ignored) == ((), [1, 1, 0], 2)


def test_in_decibels_masks_ignore_what_has_no_signal(tmp_path: Path) -> None:
    for folder, values in (("images", [[3, 0]]), ("labels", [[1, 1]])):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.array(values, np.uint8)).save(tmp_path / folder / "a.png")
    dataset = PairedFolder(tmp_path / "images", tmp_path / "labels", SPACE, channels=1, scaling="decibel")
    assert dataset[0][1].tolist() == dataset.mask(0).tolist() == [[1, 255]]
    assert examine(InspectedSplit("train", dataset), 0).pixels.tolist() == [0, 1, 0]
