"""`fcnseg geometry`: every layer of a network with its place on the image, size and cost, and its crops."""

import json

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig
from rich.console import Console
from rich.table import Table

from fcnseg.errors import InputError
from fcnseg.models import FCN
from fcnseg.models.summary import Summary, summarise

FORMATS = ("table", "json")
_HEADINGS = (
    "layer", "kernel", "stride", "pad", "channels", "output", "scale", "offset", "field", "parameters", "multiply-adds"
)  # fmt: skip


def run(config: DictConfig) -> None:
    if config.format not in FORMATS:
        raise InputError(f"format={config.format}: expected one of {', '.join(FORMATS)}")
    summary = summarise(build(config), size_of(config))
    if config.format == "json":
        print(json.dumps(summary.to_dict(), indent=2))
    else:
        show(summary)


def build(config: DictConfig) -> FCN:
    """The configured model without values, which takes no memory and no time."""
    with torch.device("meta"):
        return instantiate(config.model, num_classes=config.num_classes, weights=None, _convert_="all")


def size_of(config: DictConfig) -> tuple[int, int]:
    """(height, width) of the image.

    Raises:
        InputError: when `input_size` is something else.
    """
    size = config.input_size
    if not isinstance(size, ListConfig) or len(size) != 2 or not all(isinstance(n, int) for n in size):
        raise InputError(f"input_size={size}: expected a height and a width in pixels, such as [224,224]")
    return int(size[0]), int(size[1])


def show(summary: Summary) -> None:
    console = Console(width=None if Console().is_terminal else 150)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in _HEADINGS:
        table.add_column(heading, justify="left" if heading == "layer" else "right", no_wrap=True)
    for row in summary.rows:
        layer = row.layer
        values = (layer.kernel, layer.stride, layer.padding, row.channels, f"{row.size[0]}x{row.size[1]}")
        place = (row.grid.map.scale, f"{float(row.grid.map.offset):g}", row.receptive_field or "")
        costs = (f"{row.parameters:,}" if row.parameters else "", f"{row.multiply_adds:,}" if row.multiply_adds else "")
        table.add_row(layer.name, *map(str, (*values, *place, *costs)))
    height, width = summary.input_size
    console.print(f"{summary.name}, padding={summary.padding}, for images of {height}x{width} pixels", style="bold")
    if summary.padded_size != summary.input_size:
        console.print("padded at the end to {}x{}, so that no layer leaves pixels out".format(*summary.padded_size))
    console.print(table)
    console.print(
        f"{summary.parameters:,} parameters, {summary.multiply_adds / 1e9:.2f} billion multiply-adds\n"
        "A layer's pixel i lies on image pixel (i - offset) / scale. field: its receptive field, in image pixels."
    )
    console.print("\ncrops", style="bold")
    cut = "is cropped by" if summary.padding == "caffe" else "has padding"
    for name, pixels, why in summary.crops:
        console.print(f"{name} {cut} {pixels}: {why}", highlight=False)
