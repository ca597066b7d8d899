"""The device that a network runs on, and the precision that is chosen for it."""

from pathlib import Path

import pytest
import torch

from fcnseg.errors import InputError
from fcnseg.inference import Predictor
from fcnseg.inference.device import default_device, fast_precision
from fcnseg.models import create_model

CPUINFO = Path("/proc/cpuinfo")


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


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({}, "32-true"),
        ({"avx512_f": True, "avx512_bf16": False}, "32-true"),
        ({"avx512_bf16": True}, "bf16-mixed"),
        ({"amx_tile": True}, "bf16-mixed"),
    ],
)
def test_bfloat16_is_for_processors_that_multiply_it(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert fast_precision() == expected


@pytest.mark.parametrize(("native", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_a_gpu_counts_before_the_processor(monkeypatch, native, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native and not including_emulation)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": not native})
    assert fast_precision() == expected


@pytest.mark.skipif(torch.cuda.is_available() or not CPUINFO.is_file(), reason="asks Linux about the processor")
def test_this_processor_is_known_as_linux_knows_it():
    flags = set(CPUINFO.read_text().split("flags", 1)[-1].splitlines()[0].split())
    native = bool(flags & {"avx512_bf16", "amx_bf16", "amx_tile"})
    assert fast_precision() == ("bf16-mixed" if native else "32-true")
