"""Training regimes: which domains a network is trained on, in which phases, at one cost for all of them.

A regime is what `regime=` chooses out of configs/regime. It comes down to settings that are there without it: one
phase to choices of data and steps, several to stages.
"""

import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, fields
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from fcnseg.data.datamodule import MIXINGS
from fcnseg.data.streams import apportion
from fcnseg.errors import InputError
from fcnseg.runs.building import build_data, domain_names

DOMAINS = ("real", "synthetic", "all")


@dataclass(frozen=True)
class Phase:
    """A part of a regime.

    Attributes:
        domains: "real", "synthetic" (all the others) or "all".
        steps: its share of all optimiser steps.
        lr: factor on `optimizer.lr`.
        mixing: as `data.mixing`.
    """

    domains: str
    steps: float
    lr: float = 1.0
    mixing: str = "balanced"


def apply_regime(config: DictConfig) -> None:
    """Put the settings that `config.regime` stands for into the config; without a regime leave it as it is.

    Every regime takes the same number of optimiser steps, with the same number of images each, and validates after
    the same steps: `trainer.max_steps` if there is one, else `trainer.max_epochs` passes over the real images. Early
    stopping would take fewer, and is left out. With `trainer.accumulate_grad_batches` an epoch is rounded up to
    whole steps.

    Raises:
        InputError: when the regime, the data or other settings do not fit it.
    """
    regime = config.get("regime")
    if regime is None:
        return
    phases = read_phases(regime)
    _check_alone(config)
    groups = _groups(config, regime.get("real"), phases)
    if regime.get("adaptation") is not None:
        target = regime.adaptation.target or groups["real"][0]
        _update(config, {"adaptation": {**regime.adaptation, "target": target}})
    _check_weights(config, groups["all"])
    batches = _batches_per_epoch(config, groups["real"])
    steps = divide(_total_steps(config, batches), {name: phase.steps for name, phase in phases.items()})
    settings = {name: _settings(config, phase, groups, steps[name], name) for name, phase in phases.items()}
    _update(config, {"data.steps_per_epoch": batches, "trainer.max_epochs": -1})
    if (config.callbacks or {}).get("early_stopping"):
        _update(config, {"callbacks.early_stopping": None})
    if len(settings) == 1:
        _update(config, *settings.values())
    else:
        _update(config, {"stages": {name: _update(OmegaConf.create(), each) for name, each in settings.items()}})


def read_phases(regime: Any) -> dict[str, Phase]:
    """The phases of a regime by name, without those that are set to null.

    Raises:
        InputError: naming what is no phase, or a value that is out of range.
    """
    regime = OmegaConf.to_container(regime, resolve=True) if OmegaConf.is_config(regime) else regime
    written = regime.get("phases") if isinstance(regime, dict) else None
    if not isinstance(written, dict) or not any(phase is not None for phase in written.values()):
        raise InputError("regime.phases: expected a mapping such as {real: {domains: real, steps: 1}}")
    if unknown := [str(key) for key in regime if key not in ("real", "phases", "adaptation")]:
        raise InputError(f"regime.{unknown[0]}: no such key; expected real, phases or adaptation")
    phases = {str(name): _phase(phase, f"regime.phases.{name}") for name, phase in written.items() if phase is not None}
    total = sum(phase.steps for phase in phases.values())
    if not math.isclose(total, 1, abs_tol=1e-6):
        raise InputError(f"regime.phases: their steps sum to {total:g}; expected shares that sum to 1")
    return phases


def divide(total: int, shares: Mapping[str, float]) -> dict[str, int]:
    """A number of steps in phases, by largest remainders, at least 1 for each.

    Raises:
        InputError: when there are fewer steps than phases.
    """
    if total < len(shares):
        raise InputError(f"regime: {total} optimiser steps are too few for {len(shares)} phases")
    steps = apportion(shares, total)
    for name in [name for name, count in steps.items() if count == 0]:
        steps[name] += 1
        steps[max(steps, key=lambda key: steps[key])] -= 1
    return steps


def _phase(written: Any, where: str) -> Phase:
    if not isinstance(written, dict):
        raise InputError(f"{where}={written}: expected a mapping such as {{domains: real, steps: 1}}")
    known = [field.name for field in fields(Phase)]
    if unknown := [str(key) for key in written if key not in known]:
        raise InputError(f"{where}.{unknown[0]}: no such key; expected one of {', '.join(known)}")
    for key in ("domains", "steps"):
        if key not in written:
            raise InputError(f"{where}: needs {key}, such as {{domains: real, steps: 1}}")
    phase = Phase(**written)
    for key, choice, choices in (("domains", phase.domains, DOMAINS), ("mixing", phase.mixing, MIXINGS)):
        if choice not in choices:
            raise InputError(f"{where}.{key}={choice}: expected one of {', '.join(choices)}")
    for key, number in (("steps", phase.steps), ("lr", phase.lr)):
        if not isinstance(number, int | float) or isinstance(number, bool) or not 0 < number < math.inf:
            raise InputError(f"{where}.{key}={number}: expected a number above 0")
    return phase


def _check_alone(config: DictConfig) -> None:
    """Refuse settings that the regime would overwrite."""
    if config.regime.get("adaptation") is not None and config.get("adaptation") is not None:
        raise InputError(f"adaptation: {_chosen()} has its own, regime.adaptation; give one or the other")
    for key, value, default in (
        ("stages", config.stages, None),
        ("data.domains", config.data.get("domains"), None),
        ("data.mixing", config.data.get("mixing"), "balanced"),
    ):
        if value not in (None, default):
            raise InputError(f"{key}={value}: {_chosen()} sets it; give one or the other")


def _groups(config: DictConfig, real: Any, phases: Mapping[str, Phase]) -> dict[str, list[str]]:
    """Names of the domains that each of DOMAINS stands for."""
    names = domain_names(config)
    real = names[0] if real is None else real
    if real not in names:
        raise InputError(f"regime.real={real}: no such domain; expected one of {', '.join(names)}")
    others = [name for name in names if name != real]
    if not others and any(phase.domains != "real" for phase in phases.values()):
        raise InputError(f"{_chosen()}: needs a synthetic domain beside {real}; try data=camvid_bgc")
    return {"real": [real], "synthetic": others, "all": names}


def _check_weights(config: DictConfig, names: list[str]) -> None:
    """Those of a phase are picked out of the weights of all domains, so a wrong name would not show there."""
    weights = _select(config, "loss.domain_weights")
    if weights is not None and set(weights) != set(names):
        raise InputError(f"loss.domain_weights={weights}: expected a weight for each of the domains {', '.join(names)}")


def _batches_per_epoch(config: DictConfig, real: list[str]) -> int:
    """A pass over the real images, or `data.steps_per_epoch`, rounded up to whole steps of the optimiser."""
    alone = deepcopy(config)
    _update(alone, {"data.domains": real, "adaptation": None})
    accumulated = _accumulated(config)
    return -(-len(build_data(alone).batches()) // accumulated) * accumulated


def _total_steps(config: DictConfig, batches: int) -> int:
    limits = {key: _select(config, f"trainer.{key}") for key in ("max_steps", "max_epochs")}
    for key, value in limits.items():
        if value not in (None, -1) and (not isinstance(value, int) or value < 1):
            raise InputError(f"trainer.{key}={value}: expected a whole number from 1 on, or -1 for none")
    steps, epochs = (None if value == -1 else value for value in limits.values())
    if steps is not None:
        return steps
    if epochs is None:
        raise InputError(f"{_chosen()}: needs trainer.max_steps or trainer.max_epochs, which the phases share")
    return epochs * batches // _accumulated(config)


def _settings(
    config: DictConfig, phase: Phase, groups: Mapping[str, list[str]], steps: int, name: str
) -> dict[str, Any]:
    """What the phase sets in the config, by dotted key."""
    names = groups[phase.domains]
    settings = {"data.domains": names, "data.mixing": phase.mixing, "trainer.max_steps": steps}
    if phase.lr != 1:
        rate = _select(config, "optimizer.lr")
        if not isinstance(rate, int | float):
            raise InputError(f"regime.phases.{name}.lr={phase.lr}: is a factor on optimizer.lr, which is {rate}")
        settings["optimizer.lr"] = rate * phase.lr
    weights = _select(config, "loss.domain_weights")
    if weights is not None:  # of one domain alone there is nothing to weigh
        settings["loss.domain_weights"] = {key: weights[key] for key in names} if len(names) > 1 else None
    if len(names) == 1 and _select(config, "callbacks.gradients.every_n_steps") is not None:
        settings["callbacks.gradients.every_n_steps"] = None  # nor to compare
    return settings


def _accumulated(config: DictConfig) -> int:
    """Batches of one step of the optimiser."""
    count = _select(config, "trainer.accumulate_grad_batches")
    if not isinstance(count, int) or count < 1:
        raise InputError(f"trainer.accumulate_grad_batches={count}: expected a whole number from 1 on")
    return count


def _select(config: DictConfig, key: str) -> Any:
    value = OmegaConf.select(config, key)
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _update(config: DictConfig, settings: Mapping[str, Any]) -> DictConfig:
    with open_dict(config):
        for key, value in settings.items():
            OmegaConf.update(config, key, value, merge=False)
    return config


def regime_name() -> str | None:
    """What the user chose out of configs/regime; None: nothing, or settings of their own."""
    return HydraConfig.get().runtime.choices.get("regime") if HydraConfig.initialized() else None


def _chosen() -> str:
    """The regime as the user chose it."""
    return f"regime={choice}" if (choice := regime_name()) else "regime"
