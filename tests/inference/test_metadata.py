"""What an exported network tells of itself is looked at before it is used: the file may be from anybody."""

import json
from pathlib import Path
from typing import Any

import pytest

from fcnseg.errors import InputError
from fcnseg.inference.exported.network import parse_facts
from fcnseg.models.spec import ModelSpec, read_spec

SPEC = ModelSpec("fcn32s_alexnet", 3).to_dict()
FACTS: dict[str, Any] = {
    "format_version": 1, "architecture": SPEC, "normalise": True, "argmax": False, "precision": "32-true",
    "tiling": {"step": 32, "before": 90, "after": 90}, "size": [64, 64],
}  # fmt: skip


def test_sound_metadata_is_taken() -> None:
    path = Path("net.onnx")
    assert parse_facts(path, json.dumps(FACTS)) == FACTS
    assert parse_facts(path, json.dumps({**FACTS, "tiling": None, "size": None}))["size"] is None
    assert read_spec(SPEC, "net.onnx") == ModelSpec("fcn32s_alexnet", 3)


@pytest.mark.parametrize(
    "changes",
    [
        {"architecture": "fcn8s"},
        {"normalise": 1},
        {"argmax": None},
        {"precision": []},
        {"tiling": {"step": 0, "before": 1, "after": 1}},
        {"tiling": {"step": 32, "before": -1, "after": 10**9}},
        {"tiling": {"step": 32}},
        {"tiling": [32, 1, 1]},
        {"size": [64]},
        {"size": [10**9, 10**9]},
        {"size": "64"},
    ],
)
def test_wrong_metadata_is_named(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=rf"net\.onnx: has damaged metadata \({next(iter(changes))}\)"):
        parse_facts(Path("net.onnx"), json.dumps({**FACTS, **changes}))


def test_metadata_of_another_form_and_its_spec_are_refused() -> None:
    for other in ([], 5, {}, {"format_version": "x" * 1000}):
        with pytest.raises(InputError, match="has metadata of version"):
            parse_facts(Path("net.onnx"), json.dumps(other))
    for spec, said in (
        ([], "no name"),
        ({**SPEC, "width": 1e9}, "width=1000000000"),
        ({**SPEC, "weights": "x"}, "'weights'"),
    ):
        with pytest.raises(InputError, match=f"net.onnx: its spec describes no model .*{said}"):
            read_spec(spec, "net.onnx")
