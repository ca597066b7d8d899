"""`fcnseg predict`: segment a file, a folder or a glob of images."""

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig
from rich.progress import track

from fcnseg.commands.common import require_value, require_writable, unwritable
from fcnseg.data.files.listing import list_images
from fcnseg.errors import InputError
from fcnseg.inference import Predictor


def run(config: DictConfig) -> None:
    checkpoint = require_value(config, "checkpoint", "runs/demo/.../last.ckpt or demo")
    images = find_images(require_value(config, "input", "FILE_OR_FOLDER"))
    output = Path(require_value(config, "output", "FOLDER"))
    names = output_names(images)
    _spare_inputs(images, names, output)
    require_writable(output, "masks", "overlays")
    precision = str(config.precision)
    predictor = Predictor.from_pretrained(
        checkpoint, device=config.device, precision=precision, compile=bool(config.compile)
    )
    failures = []
    for path, name in track(list(zip(images, names, strict=True)), description="predicting"):
        try:
            segmentation = predictor(path)
        except InputError as error:
            failures.append(error)
            continue
        try:
            segmentation.save(output / "masks" / name, output / "overlays" / name, config.opacity)
        except OSError as error:
            raise unwritable(output, error) from error
    if len(failures) < len(images):
        if predictor.agreement is not None:
            told = f"{predictor.agreement:.2%} of the first image's pixels have the class of 32-true"
            print(f"precision {predictor.precision}: in bf16-mixed {told}")
        print(f"{len(images) - len(failures)} masks  {output / 'masks'}\noverlays  {output / 'overlays'}")
    if failures:
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        raise InputError(f"{failures[0]}{more}")


def find_images(source: str) -> list[Path]:
    """The image files that a path or a glob pattern names.

    Raises:
        InputError: when there is none.
    """
    path = Path(source)
    if path.is_dir():
        return list_images(path)
    if path.is_file():
        return [path]
    parent = Path(path.anchor or ".")
    pattern = str(path.relative_to(parent)) if path.is_absolute() else source
    if any(c in source for c in "*?["):
        if found := sorted(p for p in parent.glob(pattern) if p.is_file()):
            return found
        raise InputError(f"input={source}: no file matches")
    raise InputError(f"input={source}: no such file or folder")


def output_names(images: Sequence[Path]) -> list[Path]:
    """Where below `masks/` and `overlays/` the pictures of each image go; no two at the same place.

    They are called as the image, which lends its ending as well where only that tells it from another. Where images
    of several folders are called alike, the folders are kept, as seen from the one that holds them all.
    """
    homes = defaultdict(set)
    for path in images:
        homes[path.stem].add(path.parent)
    if all(len(folders) == 1 for folders in homes.values()):
        return _apart([Path(path.name) for path in images])
    top = os.path.commonpath([os.path.abspath(path.parent) for path in images])
    return _apart([Path(os.path.relpath(path, top)) for path in images])


def _apart(paths: Sequence[Path]) -> list[Path]:
    """Paths of images as paths of PNGs, with the endings of images as part of the name where it has to be."""
    repeated = Counter(path.with_suffix("") for path in paths)
    names = [_png(path if repeated[path.with_suffix("")] > 1 else path.with_suffix("")) for path in paths]
    # Beside a.png and a.jpg there may be an a.png.png.
    return names if len(set(names)) == len(names) else [_png(path) for path in paths]


def _png(path: Path) -> Path:
    return path.with_name(f"{path.name}.png")


def _spare_inputs(images: Sequence[Path], names: Sequence[Path], output: Path) -> None:
    """Refuse to write over an image that is to be read."""
    read = {path.resolve() for path in images}
    for path in (output / kind / name for kind in ("masks", "overlays") for name in names):
        if path.resolve() in read:
            raise InputError(f"output={output}: {path} is one of the images of input; expected another folder")
