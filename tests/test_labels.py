"""Label spaces against mappings written out by hand and CamVid's own list of classes."""

import json

import numpy as np
import pytest

from fcnseg.errors import InputError
from fcnseg.labels import IGNORE_INDEX, STREET11, VOC21, LabelSpace

# File values out of order and beyond 8 bits, as SYNTHIA and mapping agencies have them.
SPACE = LabelSpace(
    name="odd",
    classes=("road", "car", "tree"),
    palette=((128, 64, 128), (0, 0, 142), (107, 142, 35)),
    ids=(7, 3, 40000),
    ignored_ids=(0, 255, 65535),
)
VALID = {"name": "two", "classes": ("a", "b"), "palette": ((0, 0, 0), (1, 1, 1))}


def test_decode_replaces_each_file_value_by_its_class() -> None:
    values = np.array([[7, 3, 40000], [0, 255, 65535], [40000, 40000, 7]], np.uint16)
    mask = SPACE.decode(values)
    assert mask.tolist() == [[0, 1, 2], [255, 255, 255], [2, 2, 0]]
    assert mask.dtype == np.uint8


def test_ids_are_class_indices_and_255_is_ignored_unless_told_otherwise() -> None:
    space = LabelSpace(**VALID)
    assert space.ids == (0, 1)
    assert space.decode(np.array([[1, 0, 255]], np.uint8)).tolist() == [[1, 0, IGNORE_INDEX]]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ([[7, 4], [3, 4]], "4"),
        # 40007 would be 7, a road, if it were cut down to 8 bits somewhere; 263 as well.
        ([[40007, 263]], "263, 40007"),
        (np.arange(1000, 1020)[None], "1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, ..."),
    ],
)
def test_decode_names_the_file_and_the_values_that_mean_nothing(values: list[list[int]], named: str) -> None:
    with pytest.raises(InputError) as caught:
        SPACE.decode(np.asarray(values, np.uint16), "labels/0001.png")
    message = str(caught.value)
    assert message.startswith(f"labels/0001.png: label value {named} is outside the label space 'odd'")
    assert message.endswith("(classes 3 to 40000, ignored 0, 255, 65535)")
    assert "\n" not in message


def test_to_dict_survives_json() -> None:
    for space in (SPACE, STREET11):
        again = LabelSpace(**json.loads(json.dumps(space.to_dict())))
        assert again == space
        assert hash(again) == hash(space)
        assert again.decode(np.array([[space.ids[1]]])).tolist() == [[1]]


def test_colours_is_the_palette_followed_by_black() -> None:
    colours = SPACE.colours()
    assert colours.shape == (256, 3)
    assert colours[:3].tolist() == [[128, 64, 128], [0, 0, 142], [107, 142, 35]]
    assert not colours[3:].any()


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"classes": ("a", "a")}, "stands twice"),
        ({"classes": (), "palette": ()}, "at least one"),
        ({"palette": ((0, 0, 0),)}, "2 classes, 1 colours and 2 ids"),
        ({"ids": (0, 1, 2)}, "2 classes, 2 colours and 3 ids"),
        ({"ids": (4, 4)}, "id 4 means two things"),
        ({"ids": (0, 9), "ignored_ids": (9,)}, "id 9 means two things"),
        ({"ids": (0, 65536)}, "65536; expected whole numbers from 0 to 65535"),
        # -1 would quietly be looked up from the end of the table.
        ({"ignored_ids": (-1,)}, "-1; expected whole numbers from 0 to 65535"),
        ({"ids": ("a", "b")}, "'a'; expected whole numbers"),
        ({"palette": ((0, 0, 0), (256, 0, 0))}, r"\(256, 0, 0\); expected 3 whole numbers from 0 to 255"),
        ({"palette": ((0, 0, 0), (1, 2))}, r"\(1, 2\); expected 3 whole numbers from 0 to 255"),
    ],
)
def test_contradictory_spaces_are_refused(wrong: dict[str, tuple], reason: str) -> None:
    with pytest.raises(InputError, match=f"label space two: .*{reason}"):
        LabelSpace(**{**VALID, **wrong})


def test_a_mask_has_room_for_255_classes() -> None:
    def space(count: int) -> LabelSpace:
        return LabelSpace("many", tuple(map(str, range(count))), ((0, 0, 0),) * count, tuple(range(count)))

    assert space(255).decode(np.array([[254]])).tolist() == [[254]]
    with pytest.raises(InputError, match="256 classes; at most 255 fit"):
        LabelSpace("many", tuple(map(str, range(256))), ((0, 0, 0),) * 256, ignored_ids=(300,))


def test_street11_is_camvids_list_of_classes() -> None:
    """Names, order and colours of the 11-class release (SegNet's tutorial: label_colours in test_segmentation.py)."""
    camvid = [
        ("Sky", [128, 128, 128]),
        ("Building", [128, 0, 0]),
        ("Pole", [192, 192, 128]),
        ("Road", [128, 64, 128]),
        ("Pavement", [60, 40, 222]),
        ("Tree", [128, 128, 0]),
        ("SignSymbol", [192, 128, 128]),
        ("Fence", [64, 64, 128]),
        ("Car", [64, 0, 128]),
        ("Pedestrian", [64, 64, 0]),
        ("Bicyclist", [0, 128, 192]),
    ]
    assert STREET11.num_classes == 11
    for ours, (theirs, _) in zip(STREET11.classes, camvid, strict=True):
        assert theirs.lower().startswith(ours)
    assert [list(colour) for colour in STREET11.palette] == [colour for _, colour in camvid]
    assert STREET11.decode(np.arange(12)[None]).tolist() == [[*range(11), 255]]


def test_voc_colours_follow_the_devkits_rule() -> None:
    """Bits 0, 1 and 2 of an index are the top bits of red, green and blue, bits 3, 4 and 5 the next ones, and so on."""
    for index, colour in enumerate(VOC21.palette):
        bits = f"{index:024b}"[::-1]
        assert colour == tuple(int(bits[channel::3], 2) for channel in range(3))
    assert VOC21.num_classes == 21
    assert VOC21.classes[15] == "person"
    assert VOC21.decode(np.array([[0, 20, 255]], np.uint8)).tolist() == [[0, 20, IGNORE_INDEX]]
