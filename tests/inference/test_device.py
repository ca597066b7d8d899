"""The device that a network runs on: the first GPU where there is one, the CPU otherwise, or the one that was named."""

import pytest
import torch

from fcnseg.errors import InputError
from fcnseg.inference import Predictor
from fcnseg.inference.device import default_device
from fcnseg.models import create_model


@pytest.mark.parametrize("name", [None, "auto"])
@pytest.mark.parametrize(("available", "kind"), [(True, "cuda"), (False, "cpu")])
def test_a_gpu_is_taken_where_there_is_one(monkeypatch, name, available, kind):
    """Its name is enough: nothing is put on it yet, so that this can be asked anywhere."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: pytest.fail("CUDA was touched"))
    assert default_device(name).type == kind


def test_without_a_gpu_the_predictors_model_lies_on_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    model = Predictor(create_model("fcn32s_vgg16_bn", num_classes=3, width=0.05)).model
    assert {values.device.type for values in (*model.parameters(), *model.buffers())} == {"cpu"}


def test_a_device_that_is_named_is_taken_whatever_else_there_is(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert default_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["toaster", "cuda:99", "cpu:x"])
def test_a_device_that_is_unknown_or_not_there_is_refused_in_one_line(name):
    with pytest.raises(InputError, match=rf"^device={name}: not available here$"):
        default_device(name)
