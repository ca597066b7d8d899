"""The label spaces of the street datasets, by name, and the usual groupings between them.

Masks and logits hold a class's position; `ids` are the values in label files. Colours are those of each dataset's own
documentation.
"""

from dataclasses import replace
from difflib import get_close_matches

from fcnseg.errors import InputError
from fcnseg.labels import IGNORE_INDEX, STREET11, VOC21, LabelSpace

# SYNTHIA-RAND and SYNTHIA-SEQS (the README files of the two packages; names as in the paper, Ros et al., CVPR 2016). In
# RAND the README stops at cyclist. 0 is void; 13 and 14 are reserved.
SYNTHIA = LabelSpace(
    name="synthia",
    classes=(
        "sky", "building", "road", "sidewalk", "fence", "vegetation", "pole", "car",
        "traffic sign", "pedestrian", "cyclist", "lane marking", "traffic light",
    ),
    palette=(
        (128, 128, 128), (128, 0, 0), (128, 64, 128), (0, 0, 192), (64, 64, 128), (128, 128, 0), (192, 192, 128),
        (64, 0, 128), (192, 128, 128), (64, 64, 0), (0, 128, 192), (0, 172, 0), (0, 128, 128),
    ),
    ids=(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 15),
    ignored_ids=(0, 13, 14),
)  # fmt: skip

# SYNTHIA-RAND-CITYSCAPES (its README; wall and lane marking do have the same colour there).
SYNTHIA_CITYSCAPES = LabelSpace(
    name="synthia_cityscapes",
    classes=(
        "sky", "building", "road", "sidewalk", "fence", "vegetation", "pole", "car", "traffic sign", "pedestrian",
        "bicycle", "motorcycle", "parking slot", "road work", "traffic light", "terrain", "rider", "truck", "bus",
        "train", "wall", "lane marking",
    ),
    palette=(
        (70, 130, 180), (70, 70, 70), (128, 64, 128), (244, 35, 232), (64, 64, 128), (107, 142, 35), (153, 153, 153),
        (0, 0, 142), (220, 220, 0), (220, 20, 60), (119, 11, 32), (0, 0, 230), (250, 170, 160), (128, 64, 64),
        (250, 170, 30), (152, 251, 152), (255, 0, 0), (0, 0, 70), (0, 60, 100), (0, 80, 100), (102, 102, 156),
        (102, 102, 156),
    ),
    ids=tuple(range(1, 23)),
    ignored_ids=(0,),
)  # fmt: skip

# The classes that Cityscapes scores, with the trainIds of its scripts as ids (Cordts et al., CVPR 2016). KITTI's
# semantic benchmark scores the same.
CITYSCAPES19 = LabelSpace(
    name="cityscapes19",
    classes=(
        "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation",
        "terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
    ),
    palette=(
        (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153),
        (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60), (255, 0, 0),
        (0, 0, 142), (0, 0, 70), (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32),
    ),
)  # fmt: skip

# The same classes by the ids of Cityscapes' labelIds files and of KITTI; the other ids do not count.
_CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
CITYSCAPES19_IDS = replace(
    CITYSCAPES19,
    ids=_CITYSCAPES_IDS,
    ignored_ids=(*(i for i in range(34) if i not in _CITYSCAPES_IDS), IGNORE_INDEX),
)


def _part(name: str, space: LabelSpace, without: set[str]) -> LabelSpace:
    kept = [(c, colour) for c, colour in zip(space.classes, space.palette, strict=True) if c not in without]
    return LabelSpace(name, tuple(c for c, _ in kept), tuple(colour for _, colour in kept))


# The two protocols for results from SYNTHIA to Cityscapes: the classes that pixels of both have, and those without
# wall, fence and pole (the 13 are scored in Tsai et al., "Learning to adapt structured output space", CVPR 2018).
CITYSCAPES16 = _part("cityscapes16", CITYSCAPES19, {"terrain", "truck", "train"})
CITYSCAPES13 = _part("cityscapes13", CITYSCAPES16, {"wall", "fence", "pole"})

# CamVid's own classes and colours (label_colors.txt of the release). Void, black, is id 0; the release has no other
# ids, so a class's is its place in the alphabet.
CAMVID32 = LabelSpace(
    name="camvid32",
    classes=(
        "Animal", "Archway", "Bicyclist", "Bridge", "Building", "Car", "CartLuggagePram", "Child", "Column_Pole",
        "Fence", "LaneMkgsDriv", "LaneMkgsNonDriv", "Misc_Text", "MotorcycleScooter", "OtherMoving", "ParkingBlock",
        "Pedestrian", "Road", "RoadShoulder", "Sidewalk", "SignSymbol", "Sky", "SUVPickupTruck", "TrafficCone",
        "TrafficLight", "Train", "Tree", "Truck_Bus", "Tunnel", "VegetationMisc", "Wall",
    ),
    palette=(
        (64, 128, 64), (192, 0, 128), (0, 128, 192), (0, 128, 64), (128, 0, 0), (64, 0, 128), (64, 0, 192),
        (192, 128, 64), (192, 192, 128), (64, 64, 128), (128, 0, 192), (192, 0, 64), (128, 128, 64), (192, 0, 192),
        (128, 64, 64), (64, 192, 128), (64, 64, 0), (128, 64, 128), (128, 128, 192), (0, 0, 192), (192, 128, 128),
        (128, 128, 128), (64, 128, 192), (0, 0, 64), (0, 64, 64), (192, 64, 128), (128, 128, 0), (192, 128, 192),
        (64, 0, 64), (192, 192, 0), (64, 192, 0),
    ),
    ids=tuple(range(1, 32)),
    ignored_ids=(0,),
)  # fmt: skip

# How the 32 classes became SegNet's 11 (Badrinarayanan, Kendall, Cipolla, 2017), beyond names that agree.
CAMVID32_TO_STREET11: dict[str, str | None] = {
    "Archway": "building", "Bridge": "building", "Tunnel": "building", "Wall": "building",
    "Column_Pole": "pole", "TrafficCone": "pole",
    "LaneMkgsDriv": "road", "LaneMkgsNonDriv": "road",
    "ParkingBlock": "pavement", "RoadShoulder": "pavement",
    "VegetationMisc": "tree",
    "Misc_Text": "sign", "TrafficLight": "sign",
    "SUVPickupTruck": "car", "Truck_Bus": "car", "Train": "car", "OtherMoving": "car",
    "Child": "pedestrian", "CartLuggagePram": "pedestrian", "Animal": "pedestrian",
    "MotorcycleScooter": "bicyclist",
}  # fmt: skip

LABEL_SPACES = {
    space.name: space
    for space in (STREET11, VOC21, SYNTHIA, SYNTHIA_CITYSCAPES, CITYSCAPES19, CITYSCAPES16, CITYSCAPES13, CAMVID32)
}
"""Every label space that a config can name."""


def get_label_space(name: str | LabelSpace) -> LabelSpace:
    """A label space by its name in `LABEL_SPACES`; a label space is returned as it is.

    Raises:
        InputError: for an unknown name.
    """
    if isinstance(name, LabelSpace):
        return name
    if name in LABEL_SPACES:
        return LABEL_SPACES[name]
    near = get_close_matches(str(name), LABEL_SPACES, n=3) or list(LABEL_SPACES)
    raise InputError(f"label space {name!r} is unknown; expected one of {', '.join(near)}")
