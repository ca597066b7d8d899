"""A training that collapses to one class says so, once, and what to check."""

from functools import partial

import numpy as np
import pytest
import torch

from fcnseg.data import CityScenes, SegmentationData
from fcnseg.errors import InputError
from fcnseg.models import create_model
from fcnseg.training import SegmentationModule
from fcnseg.training.collapse import CollapseWarning, collapsed_to, largest_share
from tests.training.test_module import trainer

SIZE = (32, 48)


class Constant(CityScenes):
    """Scenes all of whose labels are the ninth class."""

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, str]:
        image, mask, name = super().__getitem__(index)
        return image, np.full_like(mask, 8), name


def fit(kind: type[CityScenes], warning: CollapseWarning, epochs: int = 3) -> float:
    """Trains on one kind of scenes, and validates on sound ones; returns the largest share in the end."""
    torch.manual_seed(0)
    train, val = kind(8, 0, "real", SIZE), CityScenes(4, 1, "real", SIZE)
    data = SegmentationData({"scenes": train}, val, size=SIZE, batch_size=4, num_workers=0)
    model = create_model("fcn32s_vgg16_bn", num_classes=11, width=0.05, label_space=val.label_space.to_dict())
    torch.nn.init.normal_(model.score_fr.weight)
    module = SegmentationModule(model, optimizer=partial(torch.optim.SGD, lr=1.0))
    run = trainer(max_epochs=epochs, callbacks=[warning])
    run.fit(module, data)
    return float(run.callback_metrics["val/largest_share"])


def test_a_training_on_constant_labels_is_warned_of_once(capsys: pytest.CaptureFixture[str]) -> None:
    warning = CollapseWarning()
    assert fit(Constant, warning) > 0.99
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("collapsed")]
    assert len(said) == 1
    name = CityScenes(1).label_space.classes[8]
    assert f"% of the predictions are {name}; check that masks hold class indices" in said[0]
    assert warning.collapsed_to == 8
    fit(Constant, CollapseWarning(None))
    assert "collapsed" not in capsys.readouterr().err


def test_it_is_said_again_after_it_was_otherwise(capsys: pytest.CaptureFixture[str]) -> None:
    warning = CollapseWarning(0.9)
    fit(Constant, warning, 2)
    state = warning.state_dict()
    resumed = CollapseWarning(0.9)
    resumed.load_state_dict(state)
    fit(Constant, resumed, 2)
    assert capsys.readouterr().err.count("collapsed") == 1, "a run that goes on has said it"
    resumed.collapsed_to = None
    fit(Constant, resumed, 2)
    assert capsys.readouterr().err.count("collapsed") == 1


def test_the_class_and_its_share_by_hand() -> None:
    confusion = np.array([[600, 2], [397, 1]])
    assert largest_share(confusion) == 0.997
    assert collapsed_to(confusion) == 0
    assert collapsed_to(confusion, 0.998) is None
    assert collapsed_to(torch.tensor([[995, 1], [4, 0]])) is None, "the labels are of that class as well"
    assert collapsed_to(np.zeros((3, 3))) is None
    assert largest_share(np.zeros((3, 3))) == 0


@pytest.mark.parametrize("share", [0, 1, "most"])
def test_other_shares_are_refused(share: object) -> None:
    with pytest.raises(InputError, match=r"callbacks\.collapse\.share=.*: expected a number above 0 and below 1"):
        CollapseWarning(share)  # type: ignore[arg-type]
