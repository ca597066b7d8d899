"""The names of the models: taking one apart, and finding those that match a pattern."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatch

from fcnseg.errors import InputError
from fcnseg.models import timm_backbones
from fcnseg.models.backbones import BACKBONES, FINEST

SKIPS = {32: 0, 16: 1, 8: 2, 4: 3, 2: 4}
"""How many of the finer taps an FCN scores and adds, by the stride of its finest scores."""

STEMS = {"": 1, "stem2": 2, "stem4": 4}
"""How many times further the first layers stride, by variant."""


@dataclass(frozen=True)
class ModelName:
    """A model's name, taken apart: `fcn{stride}s_{backbone}[_{variant}]`."""

    stride: int
    backbone: str
    variant: str = ""

    def __str__(self) -> str:
        return "_".join(part for part in (f"fcn{self.stride}s", self.backbone, self.variant) if part)


def _names() -> list[ModelName]:
    """Every name that is listed."""
    finest = {backbone: FINEST[backbone] for backbone in BACKBONES}
    names = [ModelName(stride, b, stem) for b in finest for stride in SKIPS if stride >= finest[b] for stem in STEMS]
    names += [ModelName(stride, backbone, "atonce") for stride in (16, 8) for backbone in ("vgg16", "vgg19")]
    if timm_backbones.is_installed():
        offered = timm_backbones.OFFERED
        names += [ModelName(stride, b) for b in offered for stride in SKIPS if stride >= offered[b]]
    return names


def parse_name(name: str) -> ModelName:
    """Take a model's name apart; any backbone of timm with feature maps is understood, listed or not.

    Raises:
        InputError: for an unknown name, with the nearest ones, and for scores finer than its backbone can have.
    """
    listed = {str(n): n for n in _names()}
    if name in listed:
        return listed[name]
    head, _, backbone = name.partition("_")
    stride = next((s for s in SKIPS if head == f"fcn{s}s"), None)
    if stride and timm_backbones.has_backbone(backbone):
        return ModelName(stride, backbone)
    if stride and stride < 8:
        _refuse_finer(name, backbone, listed)
    near = get_close_matches(name, listed, n=3) or list_models("fcn8s_*")
    hint = "" if timm_backbones.is_installed() else "; more backbones come with timm: pip install timm"
    raise InputError(f"unknown model {name!r}; expected one like {', '.join(near)}{hint}")


def _refuse_finer(name: str, backbone: str, listed: Mapping[str, ModelName]) -> None:
    """
    Raises:
        InputError: where the backbone's coarser FCNs are listed.
    """
    coarser = [n for n in listed.values() if str(n).partition("_")[2] == backbone]
    if coarser:
        finest = min(coarser, key=lambda n: n.stride)
        at_once = finest.variant == "atonce"
        reason = "the reference has factors for two skips" if at_once else "its trunk has no finer features"
        raise InputError(f"{name}: {reason}; expected {finest} at the finest")


def is_model(name: str) -> bool:
    """Whether `create_model` knows the name."""
    try:
        parse_name(name)
    except InputError:
        return False
    return True


def list_models(pattern: str = "*") -> list[str]:
    """Names of the models that match a shell pattern such as "*vgg16*", sorted.

    With timm installed, FCNs over some of its networks are among them; `create_model` takes any of its others too.
    """
    return sorted(name for name in map(str, _names()) if fnmatch(name, pattern))
