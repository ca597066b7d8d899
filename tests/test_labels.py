"""Label spaces against mappings written out by hand, torchvision's tables and CamVid's own list of classes."""

import json
from itertools import permutations

import numpy as np
import pytest
import torchvision
from hypothesis import given
from hypothesis import strategies as st

from fcnseg.errors import InputError
from fcnseg.label_spaces import (
    CAMVID32,
    CITYSCAPES13,
    CITYSCAPES16,
    CITYSCAPES19,
    CITYSCAPES19_IDS,
    LABEL_SPACES,
    SYNTHIA,
    SYNTHIA_CITYSCAPES,
    get_label_space,
)
from fcnseg.labels import ALIASES, IGNORE_INDEX, STREET11, VOC21, LabelSpace

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


# The street datasets

OF_CITYSCAPES = torchvision.datasets.Cityscapes.classes


def test_cityscapes_has_torchvisions_names_ids_and_colours() -> None:
    scored = sorted((c for c in OF_CITYSCAPES if 0 <= c.train_id < 255), key=lambda c: c.train_id)
    assert CITYSCAPES19.classes == CITYSCAPES19_IDS.classes == tuple(c.name for c in scored)
    assert CITYSCAPES19.palette == CITYSCAPES19_IDS.palette == tuple(c.color for c in scored)
    assert CITYSCAPES19_IDS.ids == tuple(c.id for c in scored)
    every = [c for c in OF_CITYSCAPES if c.id >= 0]
    masks = CITYSCAPES19_IDS.decode(np.array([[*(c.id for c in every), 255]]))
    assert masks.tolist() == [[*(c.train_id for c in every), 255]]


def test_synthia_borrows_the_colours_of_camvid_and_cityscapes() -> None:
    """By name; the READMEs of the packages give fence and a few classes of their own a colour of their own."""
    camvid = dict(zip(map(str.lower, CAMVID32.classes), CAMVID32.palette, strict=True))
    in_camvid = {"traffic sign": "signsymbol", "vegetation": "tree", "pole": "column_pole", "cyclist": "bicyclist"}
    for name, colour in zip(SYNTHIA.classes[:11], SYNTHIA.palette, strict=False):
        assert colour == camvid[in_camvid.get(name, name)]
    cityscapes = {c.name: c.color for c in OF_CITYSCAPES}
    cityscapes |= {"pedestrian": cityscapes["person"], "parking slot": cityscapes["parking"]}
    its_own = {"fence", "road work", "lane marking"}
    for name, colour in zip(SYNTHIA_CITYSCAPES.classes, SYNTHIA_CITYSCAPES.palette, strict=True):
        assert name in its_own or colour == cityscapes[name]


def test_the_protocols_from_synthia_to_cityscapes() -> None:
    assert CITYSCAPES16.classes == (
        "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign",
        "vegetation", "sky", "person", "rider", "car", "bus", "motorcycle", "bicycle",
    )  # fmt: skip
    assert [c for c in CITYSCAPES16.classes if c not in CITYSCAPES13.classes] == ["wall", "fence", "pole"]
    for space in (CITYSCAPES16, CITYSCAPES13):
        assert not SYNTHIA_CITYSCAPES.mapping_to(space).missing
        for name, colour in zip(space.classes, space.palette, strict=True):
            assert colour == CITYSCAPES19.palette[CITYSCAPES19.classes.index(name)]
    # The published order of SYNTHIA's ids for Cityscapes' trainIds 0 to 18.
    order = [3, 4, 2, 21, 5, 7, 15, 9, 6, 16, 1, 10, 17, 8, 18, 19, 20, 12, 11]
    mask = SYNTHIA_CITYSCAPES.decode(np.array([order]))
    assert SYNTHIA_CITYSCAPES.mapping_to(CITYSCAPES19)(mask).tolist() == [list(range(19))]


# From one label space to another


def small(name: str, *classes: str) -> LabelSpace:
    return LabelSpace(name, classes, tuple((i, i, i) for i in range(len(classes))))


def test_a_mapping_goes_by_extra_then_name_then_alias() -> None:
    source = small("source", "Side_Walk", "road", "tree", "rider", "lane-marking", "moon")
    target = small("target", "road", "side walk", "vegetation", "bicyclist", "cyclist")
    mapping = source.mapping_to(target, extra={"lane marking": "road"})
    assert mapping.indices == (1, 0, 2, 4, 0, IGNORE_INDEX), "a rider is a cyclist rather than a bicyclist"
    assert mapping.ignored == ("moon",)
    assert mapping.missing == ("bicyclist",)
    assert source.mapping_to(target, extra={"rider": None, "road": "side walk"}).indices[:4] == (1, 1, 2, IGNORE_INDEX)


def test_a_mapping_shows_itself_as_a_table() -> None:
    source = small("source", "road", "lane marking", "tree", "moon", "sun")
    target = small("target", "road", "vegetation", "wall")
    assert str(source.mapping_to(target, extra={"lane marking": "road"})).splitlines() == [
        "source -> target",
        "  road        <- road, lane marking",
        "  vegetation  <- tree",
        "  ignored     <- moon, sun",
        "  warning: nothing in source is wall",
    ]
    assert str(target.mapping_to(target)).splitlines()[1:] == [
        "  road        <- road",
        "  vegetation  <- vegetation",
        "  wall        <- wall",
    ]


def test_spaces_without_a_common_class_are_refused() -> None:
    with pytest.raises(InputError) as caught:
        small("one", "cat").mapping_to(small("other", "road", "sky"))
    assert str(caught.value) == "label space one has no class of other: road, sky"


@given(st.data())
def test_a_mask_is_mapped_pixel_by_pixel(data: st.DataObject) -> None:
    streets = [space for space in LABEL_SPACES.values() if space is not VOC21]
    source, target = data.draw(st.sampled_from(list(permutations(streets, 2))))
    mask = np.array(data.draw(st.lists(st.sampled_from([*range(source.num_classes), 255]), min_size=6, max_size=6)))
    mapping = source.mapping_to(target)

    def plain(name: str) -> str:
        return name.lower().replace("_", " ")

    names = [plain(name) for name in target.classes]
    for before, after in zip(mask, mapping(mask.astype(np.uint8).reshape(2, 3)).ravel(), strict=True):
        name = plain(source.classes[before]) if before != 255 else "ignored"
        candidates = [n for n in (name, *ALIASES.get(name, ())) if n in names]
        assert after == (names.index(candidates[0]) if candidates else 255)


def test_aliases_are_plain_names_and_one_class_under_two_names_works_both_ways() -> None:
    for name, others in ALIASES.items():
        assert all(n == n.lower() and "_" not in n for n in (name, *others))
    for one, other in (("pavement", "sidewalk"), ("tree", "vegetation"), ("sign", "traffic sign"),
                       ("pedestrian", "person"), ("cyclist", "bicyclist")):  # fmt: skip
        assert small("a", one).mapping_to(small("b", other)).indices == (0,)
        assert small("a", other).mapping_to(small("b", one)).indices == (0,)
    # A class's own name comes before its aliases.
    assert small("a", "cyclist").mapping_to(small("b", "bicyclist", "cyclist")).indices == (1,)
    # Not the other way round: a bicycle's rider is no bicycle where riders have a class.
    whole = small("a", "bicyclist").mapping_to(small("b", "rider", "bicycle"))
    assert whole.indices == (1,)
    parts = small("b", "rider", "bicycle", "motorcycle").mapping_to(small("a", "bicyclist"))
    assert parts.indices == (0, 0, 0)


def test_label_spaces_go_by_name() -> None:
    assert get_label_space("street11") is STREET11
    assert get_label_space(SYNTHIA) is SYNTHIA
    assert all(name == space.name for name, space in LABEL_SPACES.items())
    with pytest.raises(InputError, match="label space 'street' is unknown; expected one of street11"):
        get_label_space("street")
    with pytest.raises(InputError, match="label space 'x' is unknown; expected one of street11, voc21, synthia"):
        get_label_space("x")
