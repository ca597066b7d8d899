"""`fcnseg predict`: segment a file, a folder or a glob of images."""

from collections import Counter
from pathlib import Path

from omegaconf import DictConfig
from rich.progress import track

from fcnseg.commands.common import require_value
from fcnseg.data.files.listing import list_images
from fcnseg.errors import InputError
from fcnseg.inference import Predictor


def run(config: DictConfig) -> None:
    checkpoint = require_value(config, "checkpoint", "runs/demo/.../last.ckpt or demo")
    images = find_images(require_value(config, "input", "FILE_OR_FOLDER"))
    output = Path(require_value(config, "output", "FOLDER"))
    predictor = Predictor.from_pretrained(checkpoint, device=config.device)
    repeated = Counter(path.stem for path in images)
    failures = []
    for path in track(images, description="predicting"):
        name = path.name if repeated[path.stem] > 1 else path.stem
        try:
            segmentation = predictor(path)
        except InputError as error:
            failures.append(error)
            continue
        segmentation.save(output / "masks" / f"{name}.png", output / "overlays" / f"{name}.png", config.opacity)
    if len(failures) < len(images):
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
