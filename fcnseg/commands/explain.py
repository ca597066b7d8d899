"""`fcnseg explain`: look inside a network at an image; pictures, a table, and the numbers as JSON."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from rich.console import Console
from rich.table import Table

from fcnseg import explain
from fcnseg.atomic import replacing
from fcnseg.commands.common import require_value, require_writable, unwritable
from fcnseg.errors import InputError
from fcnseg.explain.activations import find_layer, has_filters
from fcnseg.explain.gradcam import require_captum
from fcnseg.explain.seen import Pixel
from fcnseg.inference.device import default_device
from fcnseg.inference.exported import is_exported
from fcnseg.inference.naming import find_images
from fcnseg.models import FCN, from_pretrained

PARTS = ("field", "skips", "activations", "filters", "gradcam")

Drawn = tuple[str, Image.Image, dict[str, Any]]
"""A picture's file, without its ending, and its numbers."""


@dataclass(frozen=True, eq=False)
class Subject:
    """What is explained.

    Attributes:
        pixel: row and column of the image.
        chosen: how that pixel comes to its class.
        class_index: of the class that is looked at.
        layers: that were asked for; none by default.
    """

    model: FCN
    seen: explain.Seen
    pixel: Pixel
    found: explain.Contributions
    chosen: explain.Decision
    class_index: int
    layers: list[str]
    config: DictConfig

    @property
    def at(self) -> Pixel:
        """The network's pixel."""
        return self.seen.network_pixel(self.pixel)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.seen.label_space.classes


def run(config: DictConfig) -> None:
    checkpoint = require_value(config, "checkpoint", "runs/demo/.../last.ckpt or demo")
    source = require_value(config, "input", "IMAGE")
    output = Path(require_value(config, "output", "FOLDER"))
    shown = _listed(config.show)
    if unknown := [part for part in shown if part not in PARTS]:
        raise InputError(f"show={unknown[0]}: expected some of {', '.join(PARTS)}")
    if "gradcam" in shown:
        require_captum()
    if is_exported(checkpoint):
        raise InputError(f"checkpoint={checkpoint}: an exported network shows no inside; give what it was made of")
    require_writable(output)
    subject = _subject(config, from_pretrained(checkpoint).to(default_device(config.device)), source)
    numbers = {"checkpoint": checkpoint, "image": source} | _place(subject)
    drawn = [each for part in shown for each in _DRAWN[part](subject)]
    for _, _, facts in drawn:
        for key, value in facts.items():
            numbers[key] = numbers[key] | value if key in numbers else value
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name, picture, _ in drawn:
            with replacing(output / f"{name}.png") as temporary:
                picture.save(temporary, format="PNG")
        with replacing(output / "explain.json") as temporary:
            Path(temporary).write_text(json.dumps(numbers, indent=2) + "\n")
    except OSError as error:
        raise unwritable(output, error) from error
    _tell(subject, numbers)
    print(f"{', '.join(f'{name}.png' for name, _, _ in drawn)}, explain.json  {output}")


def _subject(config: DictConfig, model: FCN, source: str) -> Subject:
    if Path(source).is_dir():
        raise InputError(f"input={source}: a folder; expected an image")
    layers = _listed(config.layer)
    for layer in layers:
        find_layer(model, layer)
    seen = explain.look(model, source, config.scale)
    height, width = seen.size
    wanted = [height // 2, width // 2] if config.pixel is None else config.pixel
    if not OmegaConf.is_list(wanted) and not isinstance(wanted, list):
        raise InputError(f"pixel={wanted}: expected a row and a column, such as [120,200]")
    pixel = seen.require_pixel(list(wanted))
    asked = None if config["class"] is None else seen.class_index(config["class"])
    found = explain.contributions(model, seen.images)
    chosen = explain.decision(found, seen, pixel)
    index = chosen.ranking[0] if asked is None else asked
    return Subject(model, seen, pixel, found, chosen, index, layers, config)


def _listed(value: Any) -> list[str]:
    if value is None:
        return []
    return [str(each) for each in (value if OmegaConf.is_list(value) else [value])]


def _place(subject: Subject) -> dict[str, Any]:
    ranked, logits = subject.chosen.ranking, subject.chosen.logits
    return {
        "image_size": list(subject.seen.size),
        "seen_size": list(subject.seen.images.shape[-2:]),
        "pixel": list(subject.pixel),
        "network_pixel": list(subject.at),
        "predicted": subject.classes[ranked[0]],
        "class": subject.classes[subject.class_index],
        "logits": {subject.classes[i]: float(logits[i]) for i in ranked},
    }


def _field(subject: Subject) -> Iterator[Drawn]:
    model, seen, at = subject.model, subject.seen, subject.at
    height, width = seen.images.shape[-2:]
    field = explain.receptive_field(model, at, (height, width))
    average = subject.config.average
    paths = find_images(str(average), key="average")[0] if average is not None else []
    images = (explain.look(model, path, subject.config.scale).images for path in paths)
    effective = explain.effective_field(model, images if paths else [seen.images], at, subject.class_index)
    taps = {
        tap.name: {
            "stride": int(tap.grid.stride),
            "samples": tap.samples,
            "box": tap.box,
            "offset": [float(n) for n in tap.offset],
        }
        for tap in field.taps
    }
    numbers = {
        "box": field.box,
        "size": field.size,
        "local": field.local,
        "effective_size": explain.effective_size(effective),
        "averaged_over": max(len(paths), 1),
        "taps": taps,
    }
    yield "field", explain.field_figure(seen, field, subject.pixel, effective), {"field": numbers}


def _skips(subject: Subject) -> Iterator[Drawn]:
    chosen, maps = subject.chosen, explain.skip_maps(subject.found, subject.seen)
    shares, changed = maps.shares(), maps.changed()
    taps = {
        name: {
            "parts": {subject.classes[i]: float(chosen.parts[k, i]) for i in chosen.ranking},
            "part_of_lead": float(chosen.lead[k]),
            "without": subject.classes[chosen.without[k]],
            "decides_of_image": shares[name],
            "changes_of_image": changed[name],
        }
        for k, name in enumerate(chosen.names)
    }
    biases = {subject.classes[i]: float(chosen.biases[i]) for i in chosen.ranking}
    numbers = {"deciding": chosen.deciding, "lead": float(chosen.lead.sum()), "taps": taps, "biases": biases}
    yield "skips", explain.skips_figure(subject.seen, maps, chosen, subject.pixel), {"skips": numbers}


def _activations(subject: Subject) -> Iterator[Drawn]:
    for layer in subject.layers or explain.scored_layers(subject.model):
        maps = explain.activations(subject.model, subject.seen.images, layer)
        facts = {"shape": list(maps.shape), "least": float(maps.min()), "greatest": float(maps.max())}
        sheet = explain.activation_sheet(maps, layer, subject.config.maps)
        yield f"activations_{layer}", sheet, {"activations": {layer: facts}}


def _filters(subject: Subject) -> Iterator[Drawn]:
    model, first = subject.model, explain.first_layer(subject.model)
    layers = [layer for layer in subject.layers if has_filters(model, layer)]
    if not subject.layers:
        layers = [first]
    elif not layers and _listed(subject.config.show) == ["filters"]:
        layers = subject.layers  # the first of which is refused, with those that have some
    for layer in layers:
        weights = explain.filters(model, layer)
        colours = layer == first and weights.shape[1] == 3
        sheet = explain.filter_sheet(weights, layer, colours, subject.config.maps)
        yield f"filters_{layer}", sheet, {"filters": {layer: {"shape": list(weights.shape)}}}


def _gradcam(subject: Subject) -> Iterator[Drawn]:
    model, seen, index = subject.model, subject.seen, subject.class_index
    layers = subject.layers or explain.scored_layers(model)
    regions = _regions(subject)
    rows = {
        what: [explain.grad_cam(model, seen.images, index, layer, where) for layer in layers]
        for what, where in regions.items()
    }
    grids = [explain.layer_grid(model, layer) for layer in layers]
    facts = {
        layer: {what: {"shape": list(maps[i].shape), "greatest": float(maps[i].max())} for what, maps in rows.items()}
        for i, layer in enumerate(layers)
    }
    yield "gradcam", explain.gradcam_figure(seen, rows, layers, grids, subject.pixel), {"gradcam": facts}


def _regions(subject: Subject) -> dict[str, np.ndarray]:
    """The sets of the network's pixels whose scores Grad-CAM is of: where the class is predicted, and the pixel."""
    name = subject.classes[subject.class_index]
    there = (subject.found.logits.argmax(0) == subject.class_index).cpu().numpy()
    there[subject.seen.shown[0] :], there[:, subject.seen.shown[1] :] = False, False
    alone = np.zeros_like(there)
    alone[subject.at] = True
    return ({f"{name}, where predicted": there} if there.any() else {}) | {f"{name}, at the pixel": alone}


_DRAWN = {"field": _field, "skips": _skips, "activations": _activations, "filters": _filters, "gradcam": _gradcam}


def _tell(subject: Subject, numbers: dict[str, Any]) -> None:
    """The pixel, and a line for each tap."""
    chosen, classes = subject.chosen, subject.classes
    first, second = [*chosen.ranking, chosen.ranking[0]][:2]
    console = Console(width=None if Console().is_terminal else 150)
    table = Table(box=None, header_style="bold", pad_edge=False)
    headings = ("tap", "stride", "sees", "offset", classes[first], classes[second], "part of lead", "without it")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("tap", "without it") else "right", no_wrap=True)
    height, width = subject.seen.images.shape[-2:]
    field = explain.receptive_field(subject.model, subject.at, (height, width))
    for k, tap in enumerate(field.taps):
        (top, bottom), (left, right) = tap.box
        offset = f"{float(tap.offset[0]):+g}, {float(tap.offset[1]):+g}"
        place = (tap.name, str(tap.grid.stride), f"{bottom - top}x{right - left}", offset)
        table.add_row(*place, *_signed(chosen.parts[k], chosen.lead[k], first, second), classes[chosen.without[k]])
    table.add_row("biases", "", "", "", *_signed(chosen.biases, chosen.lead[-1], first, second))
    table.add_row("sum", "", "", "", *_signed(chosen.logits, chosen.lead.sum(), first, second), classes[first])
    row, column = subject.pixel
    console.print(f"row {row}, column {column}: {classes[first]}, and not {classes[second]}", style="bold")
    console.print(table)
    console.print(f"sizes and offsets in pixels as the network sees the image, {height}x{width}", highlight=False)
    console.print(f"{chosen.deciding} decides, with the largest part of the lead", highlight=False)
    if found := numbers.get("field"):
        over = found["averaged_over"]
        console.print(
            f"of {found['size'][0]}x{found['size'][1]} pixels that it may depend on, it does so on "
            f"{found['effective_size']:.0f} across (gradients of {over} image{'s' * (over > 1)})",
            highlight=False,
        )


def _signed(parts: np.ndarray, lead: float, first: int, second: int) -> Sequence[str]:
    return f"{parts[first]:+.2f}", f"{parts[second]:+.2f}", f"{lead:+.2f}"
