"""Class names and colours from text files."""

import colorsys
from pathlib import Path

import pytest

from fcnseg.classes import distinct_colours, label_space_from_file
from fcnseg.errors import InputError


def test_the_line_is_the_id_and_the_name_is_all_of_it(tmp_path: Path) -> None:
    (tmp_path / "street.txt").write_bytes("\ufeffvoid\r\nroad surface\r\ntree 1 2 3\r\nStraße\r\n\r\n".encode())
    space = label_space_from_file(tmp_path / "street.txt", ignored_ids=(9, 255))
    assert space.name == "street"
    assert space.classes == ("void", "road surface", "tree 1 2 3", "Straße")
    assert space.ids == (0, 1, 2, 3)
    assert space.ignored_ids == (9, 255)
    assert len(set(space.palette)) == 4


def test_colours_come_from_their_own_file(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("sky\nroad\n")
    (tmp_path / "colours.txt").write_text("128 128 128\n 128\t64 0 \n")
    space = label_space_from_file(tmp_path / "names.txt", tmp_path / "colours.txt")
    assert space.palette == ((128, 128, 128), (128, 64, 0))


@pytest.mark.parametrize(
    ("names", "colours", "message"),
    [
        ("a\n\nb\n", None, "names.txt, line 2: empty; expected a class name in each line"),
        ("", None, "names.txt, line 1: empty; expected a class name in each line"),
        ("a\nb\na\n", None, "names.txt, line 3: the class 'a' stands in line 1 already"),
        ("\n".join(map(str, range(256))), None, "names.txt: label space names: 256 classes; at most 255 fit"),
        ("a\nb\n", "1 2 3\n", "colours.txt: 1 colours; expected 2, one for each class in"),
        ("a\nb\n", "1 2 3\n1 2 256\n", "colours.txt, line 2: '1 2 256'; expected three whole numbers from 0 to 255"),
        ("a\nb\n", "1 2 3\n1 2\n", "colours.txt, line 2: '1 2'; expected three whole numbers from 0 to 255"),
        ("a\nb\n", "1 2 3\n1 -2 3\n", "colours.txt, line 2: '1 -2 3'; expected three whole numbers"),
        (None, None, "names.txt: no such file"),
    ],
)
def test_mistakes_are_named_with_their_line(
    tmp_path: Path, names: str | None, colours: str | None, message: str
) -> None:
    if names is not None:
        (tmp_path / "names.txt").write_text(names)
    if colours is not None:
        (tmp_path / "colours.txt").write_text(colours)
    with pytest.raises(InputError) as caught:
        label_space_from_file(tmp_path / "names.txt", tmp_path / "colours.txt" if colours else None)
    assert str(caught.value).startswith(f"{tmp_path}/{message}")


def test_a_picture_is_no_list_of_names(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    with pytest.raises(InputError, match=r"names\.txt: cannot be read as text"):
        label_space_from_file(tmp_path / "names.txt")


def test_generated_colours_differ_and_go_around_the_circle_of_hues() -> None:
    for count in (1, 2, 11, 100, 255):
        assert len(set(distinct_colours(count))) == count
    hues = [colorsys.rgb_to_hsv(*colour)[0] for colour in distinct_colours(8)]
    assert hues == pytest.approx([i / 8 for i in range(8)], abs=0.01)
