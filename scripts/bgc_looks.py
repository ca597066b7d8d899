"""A second look at the finished runs of a study: frames far from the block that was trained on, and calibration.

What is found stays in a run's folder, so that it is looked at once.
"""

from typing import Any

from bgc_runs import CALIBRATION, FAR, Run
from omegaconf import DictConfig, OmegaConf

from fcnseg import from_pretrained, optimise
from fcnseg.data import CamVid, SegmentationData, Subset
from fcnseg.errors import InputError
from fcnseg.evaluation import evaluate
from fcnseg.evaluation.calibration import calibrate
from fcnseg.evaluation.comparison import save_matrices
from fcnseg.evaluation.report import write_json
from fcnseg.runs.building import build_data

MARGIN = 20
"""Training images on either side of the block, of a second each, that are no test of streets not seen."""


def look(run: Run) -> None:
    """Score the last weights on CamVid's training images far from the run's block, and tell how sure they are of `val`.

    Raises:
        InputError: when the run's data or weights are not there.
    """
    config = OmegaConf.load(run.phases[-1] / "config.yaml")
    assert isinstance(config, DictConfig)
    part = far_part(config)
    if (run.folder / CALIBRATION).exists() and (part is None or (run.folder / FAR).exists()):
        return
    model = optimise(from_pretrained(run.phases[-1] / "checkpoints" / "last.ckpt"))
    data = build_data(config, train=False)
    write_json(run.folder / CALIBRATION, calibrate(model, loader(data)).to_dict())
    if part is not None:
        data.val = part
        found = evaluate(model, loader(data))
        save_matrices(found.names, found.per_image, run.folder / FAR)


def loader(data: SegmentationData) -> Any:
    data.setup("validate")
    return data.validation_loader()


def far_part(config: DictConfig) -> Subset | None:
    """The images beyond `MARGIN` from those that a run has labels of; None where there are none."""
    part = OmegaConf.select(config, "data.parts.camvid")
    if part is None:
        return None
    camvid = CamVid(config.data.root, "train")
    block = round(part.share * len(camvid))
    left = len(camvid) - block - 2 * MARGIN
    start = (round(part.start * len(camvid)) + block + MARGIN) % len(camvid)
    return Subset(camvid, left / len(camvid), start / len(camvid)) if left > 0 else None


def look_at_all(runs: list[Run]) -> None:
    """As `look`; what cannot be read any more is named, and left out."""
    for run in runs:
        try:
            look(run)
        except InputError as error:
            print(f"{run.folder}: no second look: {error}")
