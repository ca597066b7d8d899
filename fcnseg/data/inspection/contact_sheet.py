"""Pictures of an inspection: images beside their labels, the worst first, and how often each class occurs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fcnseg.atomic import replacing
from fcnseg.data.display import displayable
from fcnseg.data.files.images import read_image
from fcnseg.data.inspection.report import KINDS, SEVERITIES, Inspection, plain
from fcnseg.data.inspection.samples import Facts, InspectedSplit, lenient_mask
from fcnseg.data.resizing import resize_image, resize_mask
from fcnseg.errors import InputError
from fcnseg.labels import IGNORE_INDEX, LabelSpace

OUTSIDE = (255, 0, 255)
"""Colour of values outside the label space."""

WIDTH, HEIGHT, GAP = 300, 225, 10  # at most, of a panel; between panels
COLUMNS, TYPE = 3, 15  # entries side by side, size of the letters
STYLES = {"error": (190, 20, 20), "warning": (160, 95, 0), "note": (70, 70, 70), "": (70, 70, 70)}


@dataclass(frozen=True)
class Entry:
    """One pair on a contact sheet.

    Attributes:
        caption: two lines: where it is from, and what is wrong with it.
        severity: of the worst mistake, or empty.
        image, label: (h, w, 3) uint8 panels, the label laid over the image; None where unreadable.
        present: classes that the label shows.
    """

    caption: tuple[str, str]
    severity: str
    image: np.ndarray | None
    label: np.ndarray | None
    present: frozenset[int]


def save_contact_sheet(inspection: Inspection, path: str | Path, count: int = 24) -> None:
    """Draw pairs with mistakes, the worst first, and further ones spread over the dataset, with a legend."""
    splits = {split.name: split for split in inspection.splits}
    reasons = _reasons(inspection)
    entries = [_entry(splits[f.split], f, reasons.get(id(f), ())) for f in choose(inspection, reasons, count)]
    if not entries:
        return
    cells = [_cell(entry) for entry in entries]
    rows = [cells[i : i + COLUMNS] for i in range(0, len(cells), COLUMNS)]
    width = GAP + min(COLUMNS, len(cells)) * (2 * WIDTH + 3 * GAP)
    legend = _legend(inspection.label_space, frozenset().union(*(e.present for e in entries)), width)
    height = sum(max(cell.height for cell in row) for row in rows) + GAP
    sheet = Image.new("RGB", (width, height + legend.height), "white")
    y = GAP
    for row in rows:
        for column, cell in enumerate(row):
            sheet.paste(cell, (GAP + column * (2 * WIDTH + 3 * GAP), y))
        y += max(cell.height for cell in row)
    sheet.paste(legend, (0, y))
    with replacing(path) as temporary:
        sheet.save(temporary, format="PNG")


def choose(inspection: Inspection, reasons: dict[int, tuple[str, ...]], count: int) -> list[Facts]:
    """Pairs for the contact sheet: of each kind of mistake the first, then the second and so on; then others.

    What is only noted does not choose a pair: half of a video may be near duplicates.
    """
    queues: dict[str, list[Facts]] = {kind: [] for kind in _by_severity() if KINDS[kind][0] != "note"}
    for facts in inspection.facts:
        for kind in reasons.get(id(facts), ())[:1]:
            if kind in queues:
                queues[kind].append(facts)
    turns = [(turn, order, f) for order, q in enumerate(queues.values()) for turn, f in enumerate(q)]
    worst = [f for _, _, f in sorted(turns, key=lambda item: item[:2])][:count]
    worst.sort(key=lambda f: _by_severity().index(reasons[id(f)][0]))
    others = [f for f in inspection.facts if reasons.get(id(f), ("",))[0] not in queues]
    places = np.linspace(0, len(others) - 1, min(count - len(worst), len(others))).round().astype(int)
    return worst + [others[i] for i in places]


def save_histogram(inspection: Inspection, path: str | Path) -> None:
    """Draw each class's share of the pixels in per cent on a logarithmic scale, training against validation."""
    from matplotlib.figure import Figure

    space = inspection.label_space
    shares = {split: _shares(counts[:, 0]) for split, counts in inspection.frequencies.items()}
    positive = [s for values in shares.values() for s in values if s > 0]
    least = 10 ** np.floor(np.log10(min(positive, default=1)))
    figure = Figure(figsize=(9, 1.4 + 0.42 * space.num_classes), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    thickness = 0.8 / len(shares)
    shades = ["#2c5f8a", "#e08a2e", "#5a9b5a", "#8c6bb1", "#7a7a7a"]
    for order, (split, values) in enumerate(shares.items()):
        places = np.arange(space.num_classes) + (order - (len(shares) - 1) / 2) * thickness
        axes.barh(places, values, thickness, left=0, label=split, color=shades[order % len(shades)])
        for place, value in zip(places, values, strict=True):
            text = f" {value:.3g} %" if value else " none"
            axes.text(value or least / 2, place, text, va="center", fontsize=7, color="black" if value else "#b00000")
    axes.set(xscale="log", xlim=(least / 2, 400), ylim=(space.num_classes - 0.4, -0.6))
    axes.set_xlabel("share of the labelled pixels, % (logarithmic scale)")
    axes.set_yticks(range(space.num_classes), space.classes)
    axes.tick_params(axis="y", length=0, pad=18)
    for index, colour in enumerate(np.array(space.palette) / 255):
        axes.plot(
            -0.016, index, "s", color=colour, mec="0.4", ms=9, transform=axes.get_yaxis_transform(), clip_on=False
        )
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper right", ncols=len(shares), frameon=False)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def _by_severity() -> list[str]:
    return sorted(KINDS, key=lambda kind: SEVERITIES.index(KINDS[kind][0]))


def _reasons(inspection: Inspection) -> dict[int, tuple[str, ...]]:
    """For every pair with findings, by its `id`, their kinds, the worst first."""
    kinds: dict[str, list[str]] = {}
    for finding in inspection.findings:
        for problem in finding.problems:
            kinds.setdefault(problem.file, []).append(finding.kind)
    found = {id(f): dict.fromkeys([*kinds.get(f.image, ()), *kinds.get(f.label, ())]) for f in inspection.facts}
    order = _by_severity()
    return {key: tuple(sorted(names, key=order.index)) for key, names in found.items() if names}


def _shares(pixels: np.ndarray) -> np.ndarray:
    return 100 * pixels / max(pixels.sum(), 1)


# One entry


def _entry(split: InspectedSplit, facts: Facts, reasons: Sequence[str]) -> Entry:
    image, mask, outside = _read(split, facts)
    severity = KINDS[reasons[0]][0] if reasons else ""
    caption = (plain(f"{facts.split}   {facts.name}"), "; ".join(reasons))
    if mask is None or outside is None:
        raw = _readable(lambda: read_image(facts.label)) if split.files else None
        return Entry(caption, severity, _panel(image), _panel(raw, smooth=False), frozenset())
    present = frozenset(np.unique(mask).tolist()) - {IGNORE_INDEX}
    return Entry(caption, severity, _panel(image), _overlay(image, mask, outside, split.dataset.label_space), present)


def _read(split: InspectedSplit, facts: Facts) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """Image, mask, and where its values are outside the label space; None for what is unreadable."""
    if split.files is None:
        sample = _readable(lambda: split.dataset[facts.index])
        return (sample[0], sample[1], np.zeros(sample[1].shape, bool)) if sample else (None, None, None)
    bad = {problem.file for problem in facts.problems if problem.kind.startswith(("unreadable", "too many"))}
    image = None if facts.image in bad else _readable(lambda: _any_image(split, Path(facts.image)))
    values = None if facts.label in bad else _readable(lambda: split.files.read_values(Path(facts.label)))
    return (image, *(lenient_mask(split.dataset, values) if values is not None else (None, None)))


def _any_image(split: InspectedSplit, path: Path) -> np.ndarray:
    try:
        return read_image(path, getattr(split.files, "channels", 3))
    except InputError:
        return read_image(path)  # of another number of channels than expected


def _readable(read: Any) -> Any:
    try:
        return read()
    except Exception:  # told as a finding already; the picture says so
        return None


def _panel(image: np.ndarray | None, smooth: bool = True) -> np.ndarray | None:
    if image is None:
        return None
    shown = displayable(image)
    size = _panel_size(shown.shape)
    if smooth:
        return resize_image(shown, size)
    return np.stack([resize_mask(np.ascontiguousarray(shown[..., c]), size) for c in range(3)], axis=2)


def _panel_size(shape: Sequence[int]) -> tuple[int, int]:
    """(height, width) of the whole picture within a panel; a strip is widened to be seen at all."""
    scale = min(HEIGHT / shape[0], WIDTH / shape[1])
    return max(round(scale * shape[0]), 8), max(round(scale * shape[1]), 8)


def _overlay(image: np.ndarray | None, mask: np.ndarray, outside: np.ndarray, space: LabelSpace) -> np.ndarray:
    """The label's colours over the grey image; ignored pixels hatched, values outside the label space magenta."""
    size = _panel_size(mask.shape)
    small, strange = resize_mask(mask, size), resize_mask(outside.astype(np.uint8), size) > 0
    colours = space.colours()[small].astype(np.float32)
    if image is not None and image.shape[:2] == mask.shape:
        grey = resize_image(displayable(image), size).mean(axis=2, dtype=np.float32)[..., None]
        colours = 0.35 * grey + 0.65 * colours
    rows, columns = np.indices(size)
    stripes = np.where((rows + columns) // 4 % 2, 40, 95)[..., None]
    colours = np.where((small == IGNORE_INDEX)[..., None], stripes, colours)
    return np.where(strange[..., None], OUTSIDE, colours).astype(np.uint8)


def _cell(entry: Entry) -> Image.Image:
    """Caption, image and label of one entry."""
    line = round(TYPE * 1.5)
    known = [panel for panel in (entry.image, entry.label) if panel is not None]
    height = max((panel.shape[0] for panel in known), default=HEIGHT // 2)
    cell = Image.new("RGB", (2 * WIDTH + GAP, height + 2 * line + 2 * GAP), "white")
    draw = ImageDraw.Draw(cell)
    for row, (text, colour) in enumerate(zip(entry.caption, ((20, 20, 20), STYLES[entry.severity]), strict=True)):
        draw.text((0, row * line + line // 2), _fitting(text, cell.width), colour, _font(), anchor="lm")
    for column, (panel, what) in enumerate(((entry.image, "image"), (entry.label, "label"))):
        x, y = column * (WIDTH + GAP), 2 * line
        if panel is not None:
            cell.paste(Image.fromarray(panel), (x, y))
            continue
        draw.rectangle((x, y, x + WIDTH - 1, y + height - 1), fill=(225, 225, 225), outline=(150, 150, 150))
        draw.text((x + WIDTH // 2, y + height // 2), f"{what} cannot be read", STYLES["error"], _font(), anchor="mm")
    return cell


def _legend(space: LabelSpace, present: frozenset[int], width: int) -> Image.Image:
    """Colours and names of the classes that are shown, of ignored pixels and of values of no class."""
    items = [(space.classes[i], space.palette[i]) for i in sorted(present)]
    items += [("ignored (striped)", (70, 70, 70)), ("outside the label space", OUTSIDE)]
    step = max(int(_font().getlength(name)) for name, _ in items) + 3 * TYPE
    columns = max(1, (width - GAP) // step)
    line = round(TYPE * 1.7)
    strip = Image.new("RGB", (width, -(-len(items) // columns) * line + 2 * GAP), "white")
    draw = ImageDraw.Draw(strip)
    for position, (name, colour) in enumerate(items):
        x, y = GAP + position % columns * step, GAP + position // columns * line + line // 2
        draw.rectangle((x, y - TYPE // 2, x + TYPE, y + TYPE // 2), fill=colour, outline=(90, 90, 90))
        draw.text((x + 1.7 * TYPE, y), name, (20, 20, 20), _font(), anchor="lm")
    return strip


def _font() -> Any:
    return ImageFont.load_default(TYPE)


def _fitting(text: str, width: int) -> str:
    """A text that fits a width in pixels, its middle left out where it does not."""
    font, kept = _font(), len(text)
    while kept > 8 and font.getlength(text) > width:
        kept -= 4
        text = f"{text[: kept // 2]}…{text[-(kept // 2) :]}"
    return text
