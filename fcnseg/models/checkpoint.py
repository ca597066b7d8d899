"""Models out of Lightning checkpoints, which are read without executing code from them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fcnseg.errors import InputError
from fcnseg.labels import LabelSpace

if TYPE_CHECKING:
    from fcnseg.models.fcn import FCN

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def load_checkpoint(path: str | Path) -> "FCN":
    """Rebuild the model that a training checkpoint holds, on the CPU, in evaluation mode, with its provenance.

    Raises:
        InputError: when the file is missing, damaged, or no fcnseg checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint")
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        spec = dict(content["hyper_parameters"]["spec"])
        prefix = "model."
        state = {k.removeprefix(prefix): v for k, v in content["state_dict"].items() if k.startswith(prefix)}
        provenance = dict(content.get("provenance", {}))
        json.dumps(provenance, allow_nan=False)
    except Exception as error:  # a damaged file fails in torch's reader with almost any exception
        raise InputError(f"{path}: not an fcnseg checkpoint, or damaged") from error
    model = rebuild(spec, state, path, path)
    model.provenance = provenance
    return model


def rebuild(spec: dict[str, Any], state: Mapping[str, Any], described_in: Path, weights_in: Path) -> "FCN":
    """The model of a spec's `to_dict()` with the weights of a state dict, in evaluation mode.

    Raises:
        InputError: when the spec describes no model, or the weights are not finite or not this model's.
    """
    from fcnseg.models.registry import create_model  # the registry builds FCN, which is stored through this module

    arguments = dict(spec)
    try:
        model = create_model(arguments.pop("name"), **arguments)
        _check_classes(model)
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise InputError(f"{described_in}: its spec describes no model ({_first_line(error)})") from error
    if problem := _misfit(model.state_dict(), state):
        raise InputError(f"{weights_in}: weights do not fit {model.spec.name} ({problem})")
    model.load_state_dict(state)
    return model.eval()


def _check_classes(model: "FCN") -> None:
    """A label space must be a valid one, with a name for each channel of the logits."""
    spec = model.spec
    if spec.label_space is not None and (named := LabelSpace(**spec.label_space).num_classes) != spec.num_classes:
        raise InputError(f"num_classes={spec.num_classes}, but its label space has {named} classes")


def _misfit(expected: Mapping[str, Tensor], found: Mapping[str, Any]) -> str:
    """What keeps `found` from being a model's finite weights; empty when nothing does."""
    for names, problem in ((expected.keys() - found.keys(), "missing"), (found.keys() - expected.keys(), "unknown")):
        if names:
            first, *others = sorted(names)
            return f"{first}{f' and {len(others)} more' if others else ''} {problem}"
    for name, ours in expected.items():
        theirs = found[name]
        if not isinstance(theirs, Tensor) or theirs.layout != torch.strided:
            return f"{name} is no tensor of plain values"
        if theirs.shape != ours.shape:
            return f"size mismatch for {name}: {tuple(theirs.shape)}, expected {tuple(ours.shape)}"
        if theirs.dtype != ours.dtype and not (theirs.dtype in FLOATS and ours.dtype in FLOATS):
            return f"{name} is {theirs.dtype}, expected {ours.dtype}"
        if not theirs.isfinite().all():
            return f"{name} has values that are not finite"
    return ""


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def default_device(name: str | None = None) -> torch.device:
    """The device of that name, or the first GPU, or else the CPU.

    Raises:
        InputError: for a device that torch does not know or that is not there.
    """
    if name in (None, "auto"):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(str(name))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device={name}: not available here") from error
    return device
