"""`resume=auto`: going on wherever the folder of a run stands."""

from pathlib import Path

from omegaconf import DictConfig
from pytorch_lightning.utilities import rank_zero_only

from fcnseg.runs.folder import check_settings, checkpoint_to_resume, relative, saved_config
from fcnseg.runs.records import finished_score

AUTO = "auto"


def score_if_finished(config: DictConfig, folder: Path) -> float | None:
    """The mean IoU of the run in this folder; None when it is not finished, or not there.

    Raises:
        InputError: when it is finished, and had other settings.
    """
    if not (folder / "metrics.json").is_file():
        return None
    check_settings(config, Path(relative(folder)))
    score = finished_score(folder)
    _say(f"finished    {relative(folder)}, mean IoU {score:.3f}; nothing left to train")
    return score


def stopped_at(config: DictConfig, folder: Path) -> Path | None:
    """What `resume` names to go on in this folder: a checkpoint, or the folder of a run with stages.

    None: nothing is there to go on from, also where a run ended before its first checkpoint.

    Raises:
        InputError: when a run with other settings is there.
    """
    checkpoint = checkpoint_to_resume(folder)
    if checkpoint is None and not saved_config(folder).get("stages"):
        return None
    check_settings(config, Path(relative(folder)))
    if config.stages is None:
        _say(f"goes on     {relative(folder)}")
        return checkpoint
    return folder


@rank_zero_only
def _say(line: str) -> None:
    print(line)
