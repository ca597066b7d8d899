"""Weights as others save them: files, downloads and mappings, read as named tensors without executing code."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from fcnseg.errors import InputError
from fcnseg.models.caffemodel import read_caffemodel
from fcnseg.models.names import parse_name
from fcnseg.models.pickles import read_torch
from fcnseg.models.sharded import is_sharded, read_checkpoint
from fcnseg.models.spec import CAFFE_PREPARATION, Preparation
from fcnseg.models.timm_backbones import TimmBackbone

DEMO = Path(__file__).parents[1] / "weights" / "demo"
"""The folder of the small model that comes with the package."""


@dataclass(frozen=True)
class Source:
    """Weights from elsewhere.

    Attributes:
        name: the file's path, or what stands for it in messages.
        format: "caffe", "pytorch-fcn", "torchvision", "timm" or "fcnseg".
        tensors: by the source's own names ("conv1_1.weight", "features.0.bias"), without the prefixes of wrappers.
        preparation: of the images that the weights were trained on, where the format or the file tells.
        beside: names of what the source holds beside the network's tensors.
    """

    name: str
    format: str
    tensors: dict[str, Tensor]
    preparation: Preparation | None = None
    beside: tuple[str, ...] = ()

    def layers(self) -> list[str]:
        """Names of the layers that have tensors, in the order of their numbers."""
        names = sorted(self.tensors, key=_natural) if self.format == "torchvision" else self.tensors
        return list(dict.fromkeys(name.rpartition(".")[0] for name in names))


def read_source(source: str | Path | Mapping[str, Any]) -> Source:
    """Read a file of weights, a folder with `model.safetensors`, or a state dict.

    Raises:
        InputError: when it is missing, damaged, or holds no weights.
    """
    if isinstance(source, Mapping):
        return from_state_dict("state dict", source)
    path = DEMO if source == "demo" else Path(source)
    if path.suffix == ".caffemodel":
        return from_blobs(str(path), read_caffemodel(path))
    if is_sharded(path):
        return from_state_dict(str(path), read_checkpoint(path, optimizers=False))
    file = path / "model.safetensors" if path.is_dir() else path
    if not file.is_file():
        raise InputError(
            f"{file}: no such file; expected .caffemodel, .pth, .ckpt, .safetensors or a folder with model.safetensors"
        )
    if file.suffix == ".safetensors":
        content: Any = _read_safetensors(file)
        return from_state_dict(str(file), content, _spec_beside(file))
    return from_state_dict(str(file), read_torch(file))


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except Exception as error:  # SafetensorError, and others for damaged headers
        raise InputError(f"{path}: not a safetensors file, or damaged") from error


def _spec_beside(path: Path) -> Any:
    """The model's record in the `config.json` of the same folder, if there is one."""
    try:
        beside = path.with_name("config.json")
        config = json.loads(beside.read_text()) if beside.is_file() else None
    except (OSError, ValueError, RecursionError):
        return None
    return config.get("architecture") if isinstance(config, dict) else None


# torchvision's names of the trunks that it has weights for.
_TORCHVISION = ("vgg16", "vgg16_bn", "vgg19", "alexnet")


def read_imagenet(name: str, in_channels: int = 3) -> Source:
    """torchvision's or timm's ImageNet weights for the trunk of the model `name`, from the cache or by download.

    Raises:
        InputError: when there are none for this trunk, or the download fails.
    """
    trunk = parse_name(name).backbone
    if trunk == "caffenet":
        raise InputError(f"weights=imagenet: torchvision has none for {name}; expected the path of a .caffemodel")
    if trunk not in _TORCHVISION:
        return _read_timm(trunk, in_channels)
    from torchvision.models import get_model_weights  # seconds to import, and not needed to load a model

    weights = get_model_weights(trunk)["IMAGENET1K_V1"]
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    try:
        content = weights.get_state_dict(progress=True, check_hash=True, map_location="cpu", weights_only=True)
    except Exception as error:  # no network, a wrong hash, a damaged file: each library has its own
        if file.is_file():
            raise InputError(f"{file}: damaged, or not torchvision's; delete it to download it again") from error
        reason = " ".join(str(error).split())
        raise InputError(
            f"weights=imagenet: {file.name} could not be downloaded ({reason}); get {weights.url} and put it into "
            f"{file.parent}"
        ) from error
    return from_state_dict(str(file), content)


def _read_timm(trunk: str, in_channels: int) -> Source:
    """timm's default weights, which it adapts to the number of channels itself."""
    try:
        body = TimmBackbone(trunk, in_channels, pretrained=True)
    except InputError:
        raise
    except Exception as error:  # no network, no such weights, a damaged file
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"weights=imagenet: timm's weights of {trunk} could not be had ({reason})") from error
    config = body.body.pretrained_cfg
    mean, std = (tuple(255 * float(v) for v in config[key]) for key in ("mean", "std"))
    tensors = {f"backbone.{key}": value for key, value in body.state_dict().items()}
    return Source(f"timm's {trunk}", "timm", tensors, Preparation("rgb", mean, std) if in_channels == 3 else None)


def from_blobs(name: str, blobs: Mapping[str, Sequence[np.ndarray]]) -> Source:
    """Caffe's blobs as tensors: the first of a layer is its weight, the second its bias; dashes become underscores."""
    tensors = {}
    for layer, arrays in blobs.items():
        for i, array in enumerate(arrays):
            kind = ("weight", "bias")[i] if i < 2 else f"blob{i}"
            tensors[f"{layer.replace('-', '_')}.{kind}"] = _as_tensor(f"{name}: {layer}", array)
    _check_plain(name, tensors)
    return Source(name, "caffe", tensors, CAFFE_PREPARATION)


def _as_tensor(name: str, array: np.ndarray) -> Tensor:
    try:
        return torch.as_tensor(np.require(array, requirements="W"))
    except (TypeError, ValueError) as error:  # words, ragged lists
        raise InputError(f"{name}: expected arrays of numbers") from error


def _check_plain(name: str, tensors: Mapping[str, Tensor]) -> None:
    if not tensors:
        raise InputError(f"{name}: holds no weights; expected tensors by name")
    for key, values in tensors.items():
        if values.layout != torch.strided or values.is_meta or values.is_quantized or not values.numel():
            raise InputError(f"{name}: {key} is empty, sparse or quantized; expected plain tensors")


_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "model.", "_orig_mod.")


def from_state_dict(name: str, content: Any, spec: Any = None) -> Source:
    """Recognise a state dict, bare or in the wrappings of checkpoints, DDP, Lightning and torch.compile.

    Raises:
        InputError: when there is no tensor with a name in it.
    """
    if isinstance(content, Mapping) and isinstance(content.get("hyper_parameters"), Mapping):
        spec = content["hyper_parameters"].get("spec")
    for _ in range(3):  # a hostile file may hold itself
        if isinstance(content, Mapping):
            content = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), content)
    if not isinstance(content, Mapping):
        raise InputError(f"{name}: holds no weights; expected tensors by name")
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    beside = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    while prefix := next((p for p in _PREFIXES if any(key.startswith(p) for key in tensors)), None):
        beside += [key for key in tensors if not key.startswith(prefix)]
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    _check_plain(name, tensors)
    kind = _format(tensors)
    preparation = CAFFE_PREPARATION if kind == "pytorch-fcn" else _recorded_preparation(spec)
    return Source(name, kind, tensors, preparation, tuple(beside))


def _format(names: Mapping[str, Any]) -> str:
    starts = {name.partition(".")[0] for name in names}
    if "backbone" in starts:
        return "fcnseg"
    if "features" in starts:
        return "torchvision"
    # Without one of the head's layers it may as well be a trunk of ours.
    return "pytorch-fcn" if starts & {"conv1_1", "conv1"} and starts & {"fc6", "score_fr"} else "fcnseg"


def _recorded_preparation(spec: Any) -> Preparation | None:
    """The preparation in a model's record; None where it is unusable, for it comes from a file."""
    try:
        order, mean, std = spec["channel_order"], tuple(map(float, spec["mean"])), tuple(map(float, spec["std"]))
    except (TypeError, KeyError, ValueError):
        return None
    known = order == "rgb" or (order == "bgr" and len(mean) == 3)
    sound = len(mean) == len(std) and all(np.isfinite((*mean, *std))) and min(std, default=0) > 0
    return Preparation(order, mean, std) if known and sound else None


def _natural(name: str) -> list[Any]:
    """Sorts features.2 before features.10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
