"""Peaks of memory of processes of their own: each its own, and what ends such a process ends nothing else."""

import os
import signal
import sys
from pathlib import Path

import pytest

from fcnseg.inference import footprint
from fcnseg.inference.footprint import Footprint, Footprints, in_child
from fcnseg.inference.timing import Case
from fcnseg.models import ModelSpec, build

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is nothing to measure by")

SPEC = ModelSpec("fcn8s_vgg16", num_classes=5, width=0.05)


def case(side: int) -> Case:
    return Case("plain", "32-true", "forward", (side, side), 1)


def test_a_larger_call_before_leaves_no_trace():
    with Footprints() as footprints:
        first, larger, again = (footprints(SPEC, case(side)).bytes or 0 for side in (128, 512, 128))
    assert larger > 4 * first
    assert again == pytest.approx(first, abs=0.1 * larger), "to what allocators keep"


def test_features_are_counted():
    """Two maps of conv1 are there at once: 3 of 64 channels at this width, of 1024x1024 pixels, float32."""
    with Footprints() as footprints:
        measured = footprints(SPEC, case(1024)).bytes or 0
    images, masks, features = 1024**2 * 3 * 4, 1024**2 * 8, 1024**2 * 3 * 4
    assert measured > images + masks + 2 * features
    assert measured < images + masks + 20 * features


def test_making_a_form_is_not_counted():
    """Bringing fc6 into another layout takes a copy of it, which is most of the weights, for a moment."""
    spec = ModelSpec("fcn32s_vgg16", num_classes=5, width=0.25)
    model = build(spec)
    weights, copy = sum(p.nbytes for p in model.parameters()), model.fc6.weight.nbytes
    with Footprints() as footprints:
        measured = footprints(spec, Case("channels_last", "32-true", "forward", (32, 32), 1)).bytes or 0
    assert weights < measured < weights + copy / 2


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        (lambda: 7, Footprint(bytes=7)),
        (lambda: len(bytearray(2**60)), Footprint(out_of_memory=True)),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), Footprint(out_of_memory=True)),
        (lambda: 1 // 0, Footprint()),
    ],
    ids=["done", "not allocated", "killed as the kernel does", "another fault"],
)
def test_what_becomes_of_a_child(job, expected):
    assert in_child(job) == expected


def test_a_process_that_cannot_be_had_leaves_the_column_empty(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(footprint, "STATUS", tmp_path / "not Linux")
    with Footprints() as footprints:
        assert footprints(SPEC, case(32)) == Footprint()
    monkeypatch.undo()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with Footprints() as footprints:
        assert footprints(SPEC, case(32)) == Footprint()
