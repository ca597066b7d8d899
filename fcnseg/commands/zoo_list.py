"""`fcnseg zoo list`: the models by name, with their size, cost and known weights."""

import json
from typing import Any

import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import track
from rich.table import Table

from fcnseg.commands.common import console_for_bars
from fcnseg.commands.geometry import FORMATS, size_of
from fcnseg.errors import InputError
from fcnseg.models import create_model, list_models
from fcnseg.models.summary import summarise
from fcnseg.models.zoo import published_weights


def run(config: DictConfig) -> None:
    if config.format not in FORMATS:
        raise InputError(f"format={config.format}: expected one of {', '.join(FORMATS)}")
    names = list_models(config.pattern)
    if not names:
        raise InputError(f"pattern={config.pattern}: no model of that name; try 'pattern=*vgg*'")
    models = [entry(name, config) for name in track(names, "reading", console=console_for_bars(), transient=True)]
    if config.format == "json":
        print(json.dumps(models, indent=2))
    else:
        show(models)
        if len(models) < (count := len(list_models())):
            print(f"{len(models)} of {count} models, those of {config.pattern}; 'pattern=*' lists all.")


def entry(name: str, config: DictConfig) -> dict[str, Any]:
    with torch.device("meta"):
        model = create_model(name, num_classes=config.num_classes)
    summary = summarise(model, size_of(config))
    strides = [int(model.grids()[tap].stride) for tap in model.backbone.taps]
    return {
        "model": name,
        "parameters": summary.parameters,
        "multiply_adds": summary.multiply_adds,
        "tap_strides": strides,
        "scores_every": int(model.fusions[-1].layer.stride),
        "weights": [f"{w.weights} ({w.score:.1f})" if w.score else w.weights for w in published_weights(name)],
    }


def show(models: list[dict[str, Any]]) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("model", "parameters", "multiply-adds", "tap strides", "scores every"):
        table.add_column(heading, justify="left" if heading == "model" else "right", no_wrap=True)
    table.add_column("known weights (published score)", overflow="fold")
    for m in models:
        cost = (f"{m['parameters'] / 1e6:.1f} M", f"{m['multiply_adds'] / 1e9:.1f} G")
        strides = ", ".join(map(str, m["tap_strides"]))
        table.add_row(m["model"], *cost, strides, f"{m['scores_every']} px", ", ".join(m["weights"]))
    console = Console(width=None if Console().is_terminal else 150)
    console.print(table)
    console.print("fcnseg zoo info model=NAME says where weights come from and what a score measures.", style="dim")
