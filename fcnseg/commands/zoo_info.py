"""`fcnseg zoo info`: one model, its weights and how to get them."""

import json

import torch
from omegaconf import DictConfig
from rich.console import Console

from fcnseg.commands.geometry import FORMATS, size_of
from fcnseg.commands.zoo_list import entry
from fcnseg.errors import InputError
from fcnseg.models import create_model
from fcnseg.models.zoo import published_weights


def run(config: DictConfig) -> None:
    if config.format not in FORMATS:
        raise InputError(f"format={config.format}: expected one of {', '.join(FORMATS)}")
    name = config.model.name
    facts = entry(name, config)
    with torch.device("meta"):
        model = create_model(name, num_classes=config.num_classes)
    facts["taps"] = {tap: channels for tap, channels in model.backbone.channels.items()}
    facts["receptive_field"] = model.grids()["fc7"].receptive_field
    facts["weights"] = [vars(w) for w in published_weights(name)]
    if config.format == "json":
        print(json.dumps(facts, indent=2))
        return
    height, width = size_of(config)
    taps = ", ".join(
        f"{tap} (stride {s}, {c} channels)"
        for (tap, c), s in zip(facts["taps"].items(), facts["tap_strides"], strict=True)
    )
    lines = [
        f"parameters      {facts['parameters']:,} with {config.num_classes} classes",
        f"multiply-adds   {facts['multiply_adds']:,} at {height}x{width}",
        f"taps            {taps}",
        f"scores          every {facts['scores_every']} pixels; fc7 sees {facts['receptive_field']} pixels",
    ]
    for w in published_weights(name):
        score = f"{w.score:.1f} " if w.score else ""
        lines += [f"weights         {w.weights}: {score}{w.measure} ({w.source})"]
        if w.weights != "imagenet":
            lines += [f"                fcnseg predict checkpoint={w.weights} input=FILE_OR_FOLDER output=FOLDER"]
        else:
            lines += [f"                fcnseg train model={name} model.weights={w.weights} ..."]
    console = Console(width=None if Console().is_terminal else 150, highlight=False)
    console.print(name, style="bold")
    for line in lines:
        console.print(line, soft_wrap=True)
