"""Protocols of published tables: whose classes they report, and what they refuse."""

import numpy as np
import pytest
import yaml
from hydra.utils import instantiate

from fcnseg.commands.configuration import config_folder
from fcnseg.evaluation import scores
from fcnseg.evaluation.protocol import Protocol
from fcnseg.label_spaces import CITYSCAPES13, CITYSCAPES16, CITYSCAPES19
from tests.data.refusals import complaint

# Positions among the 19 trainIds, as public evaluation code of SYNTHIA to Cityscapes has them.
SIXTEEN = (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18)
THIRTEEN = (0, 1, 2, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18)


def shipped(name: str) -> Protocol:
    path = config_folder() / "protocol" / f"{name}.yaml"
    return instantiate(yaml.safe_load(path.read_text()), _convert_="all")


@pytest.fixture
def published() -> Protocol:
    return shipped("synthia_to_cityscapes")


def test_from_gta5_to_cityscapes_all_19_classes_are_reported() -> None:
    assert shipped("gta5_to_cityscapes").reported(CITYSCAPES19) == {"mIoU": tuple(range(19))}


def test_the_columns_of_synthia_to_cityscapes_are_the_published_ones(published: Protocol) -> None:
    assert published.reported(CITYSCAPES19) == {"mIoU": SIXTEEN, "mIoU*": THIRTEEN}
    assert tuple(published.columns["mIoU"]) == CITYSCAPES16.classes
    assert tuple(published.columns["mIoU*"]) == CITYSCAPES13.classes


def test_without_hits_in_the_other_classes_the_mean_over_19_converts(published: Protocol) -> None:
    """mIoU16 = mIoU19 * 19 / 16, as DAFormer's repository has it for networks that never find the other three."""
    confusion = np.random.default_rng(0).integers(1, 100, (19, 19))
    others = [i for i in range(19) if i not in SIXTEEN]
    confusion[others, others] = 0
    ours = scores(confusion, published.reported(CITYSCAPES19)["mIoU"]).mean_iou
    assert ours == pytest.approx(scores(confusion).mean_iou * 19 / 16, rel=1e-12)
    assert ours < scores(confusion[np.ix_(SIXTEEN, SIXTEEN)]).mean_iou, "errors towards the others count"


def test_other_predictions_than_the_protocol_is_of_are_refused(published: Protocol) -> None:
    message = complaint(lambda: published.reported(CITYSCAPES16))
    assert "scores predictions of the 19 classes of cityscapes19; the data has 16: road, sidewalk" in message


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({}, "expected columns such as {mIoU: [road, sidewalk]}"),
        ({"a": []}, "protocol mine, a: expected a list of class names"),
        ({"a": "road"}, "protocol mine, a: expected a list of class names"),
        ({"a": ["rode"]}, "protocol mine, a: no class 'rode'; expected some of road, sidewalk"),
    ],
)
def test_a_column_names_classes(columns: dict, expected: str) -> None:
    assert expected in complaint(lambda: Protocol("mine", "me", "cityscapes19", columns))
