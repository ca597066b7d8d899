"""What an exported file makes of images beside what its network does, to look at."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from fcnseg.data.display import displayable
from fcnseg.data.resizing import framed_image
from fcnseg.geometry import shown_size
from fcnseg.inference.exported import Exported
from fcnseg.inference.overlay import add_legend, blend
from fcnseg.inference.predictor import label_space_of
from fcnseg.models import FCN

CHANGED = (230, 0, 120)
"""The colour of pixels that have another class."""


def side_by_side(exported: Exported, model: FCN, images: Sequence[np.ndarray]) -> Image.Image:
    """Overlays of the network and of the file, and over the grey image the pixels of which they think differently.

    Args:
        exported: the file, in its own runtime.
        model: what it was made of.
        images: (H, W, C) in file values; each is a row.
    """
    space, rows, present = label_space_of(model), [], set()
    for image in images:
        first, second = (_mask(network, image) for network in (model, exported))
        shown, changed = displayable(image), first != second
        overlays = [np.asarray(blend(shown, mask, space)) for mask in (first, second)]
        grey = np.repeat(np.asarray(Image.fromarray(shown).convert("L"))[..., None] // 2 + 100, 3, axis=2)
        grey[changed] = CHANGED
        names = ("PyTorch", exported.path.name, f"of another class: {changed.mean():.2%}")
        panels = [_titled(panel, name) for panel, name in zip((*overlays, grey), names, strict=True)]
        rows.append(np.concatenate(panels, axis=1))
        present |= set(np.unique([first, second]).tolist())
    width = max(row.shape[1] for row in rows)
    rows = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    return add_legend(np.concatenate(rows), space, present)


def _mask(network: FCN | Exported, image: np.ndarray) -> np.ndarray:
    only = network.facts.get("size") if isinstance(network, Exported) else None
    frame, resize, size = only or network.spec.input_size, network.spec.resize, (image.shape[0], image.shape[1])
    seen = framed_image(image, frame, resize)
    batch = torch.from_numpy(np.ascontiguousarray(seen.transpose(2, 0, 1)))[None]
    with torch.inference_mode():
        (mask,) = network.segment_each(batch.to(network.device), [size], [shown_size(size, frame, resize)])
    return mask.cpu().numpy().astype(np.uint8)


def _titled(panel: np.ndarray, title: str) -> np.ndarray:
    """With the title in a strip above, and a border at the right."""
    size = max(panel.shape[1] // 26, 11)
    picture = Image.new("RGB", (panel.shape[1] + 4, panel.shape[0] + 2 * size), "white")
    picture.paste(Image.fromarray(panel), (0, 2 * size))
    draw = ImageDraw.Draw(picture)
    draw.text((size // 2, size), title, fill=(20, 20, 20), font=ImageFont.load_default(size), anchor="lm")
    return np.asarray(picture)
