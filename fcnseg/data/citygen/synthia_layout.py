"""The embedded street scenes written to disk in SYNTHIA's layouts, for trying everything without the download."""

import json
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from fcnseg.atomic import replacing
from fcnseg.data.citygen.scenes import CityScenes
from fcnseg.data.datasets.synthia import COLOURS
from fcnseg.errors import InputError
from fcnseg.label_spaces import SYNTHIA, SYNTHIA_CITYSCAPES
from fcnseg.labels import STREET11

LAYOUTS = {"rand": SYNTHIA, "rand_cityscapes": SYNTHIA_CITYSCAPES, "seqs": SYNTHIA}
"""The label space of each layout that can be written."""


def write_synthia(
    folder: str | Path,
    length: int,
    look: str = "synthetic",
    size: tuple[int, int] = (180, 240),
    seed: int = 0,
    layout: str = "rand_cityscapes",
    sequence: str = "SYNTHIA-SEQS-01-SPRING",
) -> int:
    """Write scenes in the layout of a SYNTHIA package; a run that was stopped goes on where it was.

    Each file appears whole or not at all. The settings are kept in `scenes.json`, so that a folder never mixes
    scenes of different ones; a greater length adds scenes. Instance numbers are left 0.

    Args:
        folder: where to write; created when missing.
        length, look, size, seed: of the scenes, as for `fcnseg.data.CityScenes`; size is (height, width).
        layout: one of `LAYOUTS`; see `fcnseg.data.datasets.synthia`.
        sequence: folder of the frames in the layout "seqs".

    Returns:
        How many scenes were written; those that were there already do not count.

    Raises:
        InputError: for an unknown layout, settings that make no scenes, or a folder with scenes of other settings.
    """
    if layout not in LAYOUTS:
        raise InputError(f"layout {layout!r} is unknown; expected one of {', '.join(LAYOUTS)}")
    scenes = CityScenes(length, seed, look, size)
    root = Path(folder) / sequence if layout == "seqs" else Path(folder)
    _claim(root / "scenes.json", {"look": look, "size": list(scenes.size), "seed": seed, "layout": layout})
    mapping = STREET11.mapping_to(LAYOUTS[layout])
    written = 0
    for index in range(length):
        image_path, label_path = _paths(root, layout, index)
        if image_path.exists() and label_path.exists():
            continue
        image, mask, _ = scenes[index]
        with replacing(image_path) as temporary:
            Image.fromarray(image).save(temporary)
        _write_label(label_path, LAYOUTS[layout].encode(mapping(mask)), layout)
        written += 1
    return written


def _claim(path: Path, settings: dict[str, object]) -> None:
    """Write the settings, or compare them with those that are there."""
    if path.exists():
        if (found := json.loads(path.read_text())) != settings:
            raise InputError(f"{path}: the folder has scenes of {found}; expected {settings}, or another folder")
        return
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(settings))


def _paths(root: Path, layout: str, index: int) -> tuple[Path, Path]:
    """The image of a scene, and the label file that is written last."""
    if layout == "seqs":
        inside = Path("Stereo_Left") / "Omni_F" / f"{index:06d}.png"
        return root / "RGB" / inside, root / "GT" / "LABELS" / inside
    if layout == "rand":
        return root / "RGB" / f"{index:07d}.png", root / "GTTXT" / f"{index:07d}.txt"
    return root / "RGB" / f"{index:07d}.png", root / "GT" / "LABELS" / f"{index:07d}.png"


def _write_label(path: Path, ids: np.ndarray, layout: str) -> None:
    if layout == "rand":
        colours = np.zeros((256, 3), np.uint8)
        for colour, number in reversed(COLOURS):
            colours[number] = colour
        with replacing(path.parents[1] / "GT" / f"{path.stem}.png") as temporary:
            Image.fromarray(colours[ids]).save(temporary)
        with replacing(path) as temporary:
            temporary.write_text("\n".join(" ".join(map(str, row)) for row in ids.tolist()) + "\n")
        return
    nothing = np.zeros_like(ids)
    # PIL has no 16-bit RGB. OpenCV's order is blue, green, red.
    _, encoded = cv2.imencode(".png", np.stack([nothing, nothing, ids], axis=-1))
    with replacing(path) as temporary:
        temporary.write_bytes(encoded.tobytes())
