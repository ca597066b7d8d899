"""What a run has left in its folder, for Python and notebooks."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from fcnseg.errors import InputError
from fcnseg.evaluation.showing import score_table
from fcnseg.inference import Predictor
from fcnseg.reports.files import read_curves
from fcnseg.runs.folder import relative
from fcnseg.views import html, percent, picture, view


@dataclass(frozen=True)
class Run:
    """A finished run, read from its folder.

    Args:
        folder: what `fcnseg train` or `fcnseg.train` wrote to.

    Raises:
        InputError: when no finished run is there.
    """

    folder: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder).absolute())
        if not (self.folder / "metrics.json").is_file():
            raise InputError(f"{relative(self.folder)}: no metrics.json; expected the folder of a finished run")

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """What metrics.json holds: the scores of the last weights, 0 to 1, each class's, steps, seconds, ..."""
        path = self.folder / "metrics.json"
        try:
            return dict(json.loads(path.read_text()))
        except ValueError as error:
            raise InputError(f"{relative(path)}: damaged; expected the scores of a finished run") from error

    @property
    def mean_iou(self) -> float:
        """Of the last weights, 0 to 1."""
        return float(self.metrics["mean_iou"])

    @property
    def best(self) -> Path | None:
        """The checkpoint of the highest mean IoU in validation; None where none was kept."""
        return self._checkpoint("best")

    @property
    def last(self) -> Path | None:
        """The checkpoint of the end of training; None where none was kept."""
        return self._checkpoint("last")

    def _checkpoint(self, name: str) -> Path | None:
        kept = self.metrics["checkpoints"].get(name)
        if kept is None:
            return None
        path = self._trained / "checkpoints" / Path(kept["path"]).name
        return path if path.exists() else Path(kept["path"])

    @property
    def _trained(self) -> Path:
        """The folder itself, or that of the last stage."""
        stages = list(self.metrics.get("stages", ()))
        return self.folder / stages[-1] if stages else self.folder

    @cached_property
    def curves(self) -> dict[str, list[tuple[int, float]]]:
        """What was logged in training, by name: pairs of step and value, in order; of stages, those of the last.

        Empty without a CSV logger. Of a run that went on after an interruption they are of all its parts.
        """
        sessions = read_curves([self._trained])
        return {
            name: [
                (int(step), float(value)) for steps, values in parts for step, value in zip(steps, values, strict=True)
            ]
            for name, parts in sessions.items()
        }

    def predictor(self, device: str | None = None, **options: Any) -> Predictor:
        """A predictor with the best weights, or the last where no best ones were kept.

        Args:
            device, options: as of `Predictor.from_pretrained`.

        Raises:
            InputError: when the run kept no weights.
        """
        checkpoint = self.best or self.last
        if checkpoint is None:
            raise InputError(
                f"{relative(self.folder)}: no checkpoint was kept; expected callbacks.best or callbacks.last"
            )
        return Predictor.from_pretrained(checkpoint, device, **options)

    def __repr__(self) -> str:
        return f"Run({relative(self.folder)!r}, mean IoU {percent(self.mean_iou)} %)"

    def _repr_html_(self) -> str:
        """The table of scores and the pictures of the worst and best images, in notebooks."""
        title = f"{relative(self.folder)}: mean IoU {percent(self.mean_iou)} % after {self.metrics['step']} steps"
        examples = self._trained / "examples.png"
        shown = picture(Image.open(examples)) if examples.is_file() else html("")
        return view(title, score_table(self.metrics), shown)
