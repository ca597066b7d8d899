"""What `adaptation=` asks of the data: images of the target domain, without their labels."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fcnseg.errors import InputError

KEYS = ("target", "style", "samples", "share", "pairs", "method")
SAMPLES = (None, "others", "target")
ADAPTED = "adapted"
"""The domain of the samples that a method makes its own of."""


def add_targets(arguments: DictConfig, whole: Mapping[str, Any], adaptation: Any) -> None:
    """Let data have the samples and targets that an adaptation learns from.

    Args:
        arguments: of `SegmentationData`, with the domains that are trained on.
        whole: all domains, before parts of them were taken: images without labels cost none.
        adaptation: one of configs/adaptation.

    Raises:
        InputError: when it is none, or its target is no domain.
    """
    _require(adaptation)
    target = adaptation.target or next(iter(whole))
    if target not in whole:
        raise InputError(f"adaptation.target={target}: no such domain; expected one of {', '.join(whole)}")
    images = {"_target_": "fcnseg.data.WithoutLabels", "dataset": whole[target]}
    others = [name for name in arguments.train if name != target]
    if adaptation.samples != "target" and not others:
        raise InputError(f"adaptation: has no domain to adapt to {target}; expected another one beside it")
    if adaptation.samples is not None:
        ratio = dict(arguments.get("ratio") or dict.fromkeys(arguments.train, 1.0))
        rest = (1 - adaptation.share) / sum(ratio.values())
        sets = {name: arguments.train[name] for name in others}
        made = next(iter(sets.values())) if len(sets) == 1 else {"_target_": "fcnseg.data.Concat", "datasets": sets}
        arguments.train = {**arguments.train, ADAPTED: images if adaptation.samples == "target" else made}
        arguments.ratio = {name: value * rest for name, value in ratio.items()} | {ADAPTED: adaptation.share}
    if adaptation.pairs:
        shown = others if adaptation.samples is None else [ADAPTED]
        arguments.targets = {
            "_target_": "fcnseg.data.Targets", "dataset": images, "domains": shown, "style": adaptation.style,
        }  # fmt: skip


def _require(adaptation: Any) -> None:
    if not OmegaConf.is_dict(adaptation) or set(adaptation) != set(KEYS):
        raise InputError(f"adaptation={adaptation}: expected one of configs/adaptation, with {', '.join(KEYS)}")
    if adaptation.samples not in SAMPLES:
        raise InputError(f"adaptation.samples={adaptation.samples}: expected others, target or null")
    share = adaptation.share
    if adaptation.samples is not None and not (isinstance(share, int | float) and 0 < share < 1):
        raise InputError(f"adaptation.share={share}: expected a number above 0 and below 1")
