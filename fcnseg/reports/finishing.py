"""What every training and evaluation ends with, once its results are safe: pictures, and the page about them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from omegaconf import DictConfig

from fcnseg.data import SegmentationData
from fcnseg.errors import InputError
from fcnseg.evaluation import Evaluation
from fcnseg.inference.exported import Exported
from fcnseg.models import FCN
from fcnseg.reports.gallery import save_gallery
from fcnseg.reports.run_page import FILE, IMAGES, write_page


def images_wanted(config: DictConfig) -> int | None:
    """How many images the report of a run shows at most, by `report.images`; None: no report, by report=null.

    Raises:
        InputError: when it is no such number.
    """
    settings = config.get("report", {"images": IMAGES})  # which settings of before do not have
    if settings is None:
        return None
    images = settings.get("images", IMAGES) if hasattr(settings, "get") else settings
    if isinstance(images, bool) or not isinstance(images, int) or images < 0:
        raise InputError(f"report.images={images}: expected a whole number from 0 on, or report=null for no report")
    return images


def finish(
    folder: Path, images: int | None, evaluation: Evaluation, model: FCN | Exported, data: SegmentationData
) -> None:
    """Write gallery.zip and report.html; what goes wrong is one line on stderr, since the run itself is sound.

    Args:
        images: as of `images_wanted`.
    """
    if images is not None:
        with spared(folder / FILE):
            save_gallery(evaluation, model, data, folder, images)
            write_page(folder, images=images)


def finish_stages(folder: Path, images: int | None) -> None:
    """Write the report.html of a run with stages, each of which has its own; goes wrong as `finish` does."""
    if images is not None:
        with spared(folder / FILE):
            write_page(folder, images=images)


@contextmanager
def spared(path: Path) -> Iterator[None]:
    """Let no failure to write a page end a run whose results are written: it is told in one line."""
    try:
        yield
    except Exception as error:
        reason = str(error).strip().splitlines() or [""]
        print(f"not written {path}: {type(error).__name__}: {reason[0]}", file=sys.stderr)
