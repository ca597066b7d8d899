"""The training precision that is chosen: by what the processor says of itself."""

from pathlib import Path

import pytest
import torch

from fcnseg.errors import InputError
from fcnseg.training.precision import check_precision, fast_precision

CPUINFO = Path("/proc/cpuinfo")


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


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_weights_of_16_bits_are_refused(precision):
    with pytest.raises(
        InputError, match=f"trainer.precision={precision}: keeps the weights .*; expected 32-true, bf16"
    ):
        check_precision(precision)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed", "64-true", 32])
def test_others_are_not(precision):
    assert check_precision(precision) is None
