"""The table's text, the pictures' pixels, and files that appear whole or not at all."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from PIL import Image
from rich.console import Console
from rich.text import Text

from fcnseg.evaluation import report
from fcnseg.evaluation.metrics import scores
from fcnseg.evaluation.report import Example, print_table, save_confusion, save_examples, write_json
from fcnseg.labels import STREET11, LabelSpace

PALETTE = ((9, 99, 199), (128, 64, 128), (0, 0, 142), (0, 60, 90))
SPACE = LabelSpace("four", ("sky", "road", "car", "[bus]"), PALETTE)
# IoU 0.75, 0.99667, 0 (predicted only), absent; one sky pixel in four goes to the car.
COUNTS = np.array([[3, 0, 1, 0], [0, 2990, 10, 0], [0, 0, 0, 0], [0, 0, 0, 0]])


def table(**console: object) -> str:
    stream = io.StringIO()
    print_table(scores(COUNTS), SPACE, Console(file=stream, width=80, **console), title="val [real]")
    return stream.getvalue()


def test_table_holds_every_score_as_plain_text() -> None:
    text = table()
    rows = [line.split() for line in text.splitlines() if line.strip()]
    bars = [[cell for cell in row if "━" not in cell] for row in rows]
    assert rows[0] == ["val", "[real]"]
    assert bars[3:] == [
        ["sky", "75.0", "75.0", "0.1"],
        ["road", "99.7", "99.7", "99.9"],
        ["car", "0.0", "-", "-"],
        ["[bus]", "absent", "-", "-"],
        ["mean", "IoU", "58.2"],
        ["frequency-weighted", "IoU", "99.6"],
        ["mean", "accuracy", "87.3"],
        ["pixel", "accuracy", "99.6"],
    ]
    assert [row.count("━" * 9) for row in rows[3:6]] == [1, 0, 0]  # 12 * 0.75
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_table_shows_swatches_where_there_is_colour() -> None:
    text = table(force_terminal=True, color_system="truecolor")
    assert all(f"48;2;{r};{g};{b}" in text for r, g, b in SPACE.palette)
    assert "frequency-weighted IoU" in text, "the longest name must not wrap at 80 columns"
    colourless = table(force_terminal=True, color_system="truecolor", no_color=True)
    # Bold and dim stay, but no empty column where the swatches were.
    assert Text.from_ansi(colourless).plain.rstrip() == table().rstrip()


def test_table_survives_a_terminal_without_unicode() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    print_table(scores(COUNTS), SPACE, Console(file=stream, width=80))
    stream.flush()
    assert "#########" in stream.buffer.getvalue().decode("ascii")  # type: ignore[attr-defined]


def test_table_of_nothing() -> None:
    stream = io.StringIO()
    print_table(scores(np.zeros((4, 4))), SPACE, Console(file=stream, width=80))
    assert stream.getvalue().count("absent") == 4


def test_a_rare_class_does_not_look_absent() -> None:
    stream = io.StringIO()
    print_table(scores(np.diag([9999, 1, 0, 0])), SPACE, Console(file=stream, width=80))
    assert [line.split()[-1] for line in stream.getvalue().splitlines() if "road" in line] == ["<0.1"]


def drawn(
    monkeypatch: pytest.MonkeyPatch,
    counts: object,
    space: LabelSpace,
    path: Path,
) -> tuple[Axes, np.ndarray]:
    """The axes that save_confusion drew, and the picture that it wrote."""
    axes: list[Axes] = []
    name_axes = report._name_axes
    monkeypatch.setattr(report, "_name_axes", lambda a, s: (axes.append(a), name_axes(a, s)))
    save_confusion(counts, space, path)
    with Image.open(path) as picture:
        return axes[0], np.asarray(picture.convert("RGB"))


def test_confusion_shows_the_percentages_of_each_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    axes, picture = drawn(monkeypatch, torch.from_numpy(COUNTS), SPACE, tmp_path / "new" / "confusion.png")
    cells = {text.get_position(): text.get_text() for text in axes.texts}  # (column, row)
    assert cells == {(0, 0): "75", (2, 0): "25", (1, 1): "100"}
    shares = axes.images[0].get_array()[:2]
    np.testing.assert_allclose(shares, [[0.75, 0, 0.25, 0], [0, 2.99 / 3, 0.01 / 3, 0]])
    assert [patch.get_y() for patch in axes.patches if patch.get_hatch()] == [1.5, 2.5]
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [label.get_text() for label in labels] == list(SPACE.classes)
    pixels = {tuple(colour) for colour in picture.reshape(-1, 3).tolist()}
    assert set(SPACE.palette) <= pixels
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["confusion.png"]


def test_numbers_of_30_classes_fit_into_their_cells(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    space = LabelSpace("thirty", tuple(f"class {i}" for i in range(30)), tuple((i, 0, 0) for i in range(30)))
    axes, _ = drawn(monkeypatch, np.diag(range(1, 31)), space, tmp_path / "confusion.png")
    (left, _), (right, _) = axes.transData.transform([(0, 0), (1, 0)])
    widths = [text.get_window_extent().width for text in axes.texts]
    assert len(widths) == 30
    assert max(widths) < 0.9 * (right - left)


def test_the_matrix_of_60_classes_is_a_picture_without_numbers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    space = LabelSpace("many", tuple(f"class {i}" for i in range(60)), tuple((i, 0, 0) for i in range(60)))
    axes, picture = drawn(monkeypatch, np.diag(range(1, 61)), space, tmp_path / "confusion.png")
    assert not axes.texts
    assert max(picture.shape) < 2000
    label = axes.get_yticklabels()[0].get_window_extent().height
    (_, top), (_, bottom) = axes.transData.transform([(0, 0), (0, 1)])
    assert label < 1.2 * (top - bottom), "names do not run into each other"


def test_confusion_refuses_another_number_of_classes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="3 rows for 4 classes"):
        save_confusion(np.eye(3), SPACE, tmp_path / "confusion.png")


def example(name: str, size: tuple[int, int] = (30, 240)) -> Example:
    """Sky left of road; ignored in the left 20 columns; the right 60 are taken for the car."""
    image = np.full((*size, 3), 100, np.uint8)
    label = np.zeros(size, np.uint8)
    label[:, 120:] = 1
    prediction = label.copy()
    prediction[:, 180:] = 2
    label[:, :20] = 255
    return Example(name, image, label, prediction, 0.5)


def test_examples_show_image_label_prediction_and_error(tmp_path: Path) -> None:
    path = tmp_path / "new" / "examples.png"
    save_examples([example("a")], [], SPACE, path)
    with Image.open(path) as picture:
        sheet = np.asarray(picture.convert("RGB"))
    starts = [report.GAP + i * (240 + report.GAP) for i in range(4)]
    # The panels begin at the first row whose leftmost image pixels are the image's grey.
    top = int(np.flatnonzero((sheet[:, 12:252] == 100).all(axis=(1, 2)))[0])
    image, label, prediction, error = (sheet[top : top + 30, x : x + 240] for x in starts)
    sky, road, car, _ = SPACE.palette
    given = example("a")
    np.testing.assert_array_equal(image, given.image)
    for panel, colours in (
        (label, {0: (0, 0, 0), 20: sky, 119: sky, 120: road, 239: road}),
        (prediction, {0: sky, 119: sky, 120: road, 179: road, 180: car, 239: car}),
        (
            error,
            {0: report.UNSCORED, 19: report.UNSCORED, 20: (146,) * 3, 179: (146,) * 3, 180: report.WRONG},
        ),
    ):
        for column, colour in colours.items():
            np.testing.assert_array_equal(panel[:, column], [colour] * 30, err_msg=str(column))
    legend = {tuple(colour) for colour in sheet[top + 30 :].reshape(-1, 3).tolist()}
    assert {sky, road, car} <= legend
    assert SPACE.palette[3] not in legend
    assert [p.name for p in path.parent.iterdir()] == ["examples.png"]


def test_examples_of_several_sizes_share_a_sheet(tmp_path: Path) -> None:
    path = tmp_path / "examples.png"
    save_examples([example("a")], [example("b", (60, 480)), example("c", (300, 960))], SPACE, path)
    with Image.open(path) as picture:
        assert picture.width == 4 * 480 + 5 * report.GAP
        # Each row is scaled to panels of 480 pixels: heights 60, 60 and 150 of the image's grey.
        sheet = np.asarray(picture.convert("RGB"))
    rows = (sheet[:, report.GAP + 240] == 100).all(axis=1)
    assert rows.sum() == 60 + 60 + 150
    # Scaling makes no colour that is in no palette.
    label = sheet[rows, 2 * report.GAP + 480 : 2 * report.GAP + 960]
    assert {tuple(c) for c in label.reshape(-1, 3).tolist()} == {(0, 0, 0), *SPACE.palette[:2]}


def test_no_examples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one"):
        save_examples([], [], SPACE, tmp_path / "examples.png")


def test_example_parts_must_be_of_one_size() -> None:
    with pytest.raises(ValueError, match="frame 7"):
        Example(
            "frame 7",
            np.zeros((4, 6, 3), np.uint8),
            np.zeros((4, 6), np.uint8),
            np.zeros((6, 4), np.uint8),
            0.5,
        )


def test_write_json_is_readable_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "metrics.json"
    write_json(path, {"mean_iou": 0.5, "class": "Straße"})
    assert path.read_text(encoding="utf-8") == '{\n  "mean_iou": 0.5,\n  "class": "Straße"\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"mean_iou": float("nan")})
    assert json.loads(path.read_text(encoding="utf-8"))["mean_iou"] == 0.5
    assert [p.name for p in path.parent.iterdir()] == ["metrics.json"]


def test_a_picture_that_fails_leaves_the_old_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "examples.png"
    path.write_text("old")

    def half(self: Image.Image, to: Path) -> None:
        Path(to).write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", half)
    with pytest.raises(OSError, match="disk full"):
        save_examples([example("a")], [], STREET11, path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
