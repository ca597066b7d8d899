"""Loggers beside Lightning's own, and what all of them are sent."""

import sys
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from typing import Any

import numpy as np
from PIL import Image
from pytorch_lightning.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from pytorch_lightning.loggers.logger import rank_zero_experiment
from pytorch_lightning.utilities import rank_zero_only


class Wandb(WandbLogger):
    """Lightning's logger, which ends its run with the training: the next one of a sweep or of stages has its own."""

    @rank_zero_only
    def finalize(self, status: str) -> None:
        super().finalize(status)
        if self._experiment is not None:
            self._experiment.finish(exit_code=int(status != "success"))
            self._experiment = None


class TrackioLogger(Logger):
    """Logs to Trackio, into the folder of `TRACKIO_DIR`, or by default where `trackio show` looks for runs.

    Args:
        project: that runs are compared in.
        run_name: of the run; several may have the same.
        options: further ones of `trackio.init`, such as `space_id`.

    Raises:
        ModuleNotFoundError: where trackio is not installed.
    """

    def __init__(self, project: str = "fcnseg", run_name: str | None = None, **options: Any) -> None:
        super().__init__()
        if find_spec("trackio") is None:
            raise ModuleNotFoundError("No module named 'trackio'")
        self._project, self._run_name, self._options = project, run_name, options
        self._run: Any = None

    @property
    def name(self) -> str:
        return self._project

    @property
    def version(self) -> str | None:
        return self._run.name if self._run else self._run_name

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The `trackio.Run`, which begins when it is first asked for."""
        if self._run is None:
            import trackio

            options = {"embed": False} | self._options
            self._run = trackio.init(self._project, name=self._run_name, **options)
        return self._run

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Trackio writes them with the first metrics, and later ones not."""
        self.experiment.config.update(dict(params))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.experiment.log(dict(metrics), step=step)

    @rank_zero_only
    def log_image(self, key: str, images: list[Image.Image], step: int | None = None) -> None:
        """PIL images of one step, as `WandbLogger.log_image` takes them."""
        import trackio

        shown = [trackio.Image(image) for image in images]
        self.experiment.log({key: shown[0] if len(shown) == 1 else shown}, step=step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self._run is not None:
            import trackio

            trackio.finish()
            self._run = None


class Recipients:
    """The loggers that something is sent to, without those that failed: these are told of once and left alone.

    Args:
        loggers: all of them.
        what: is sent, to begin that line with.
    """

    def __init__(self, loggers: Iterable[Logger], what: str) -> None:
        self.left, self.what = list(loggers), what

    def each(self, send: Callable[[Logger], None]) -> None:
        """Send to one after the other; whatever goes wrong there ends no training."""
        for logger in tuple(self.left):
            try:
                send(logger)
            except Exception as error:
                self.left.remove(logger)
                reason = next(iter(str(error).strip().splitlines()), "")
                line = f"{self.what:11} none any more to {type(logger).__name__}: {type(error).__name__}: {reason}"
                print(line, file=sys.stderr, flush=True)


def takes_pictures(logger: Logger) -> bool:
    """Whether `send_pictures` can send to it."""
    return isinstance(logger, TensorBoardLogger | MLFlowLogger) or hasattr(logger, "log_image")


def send_pictures(logger: Logger, pictures: Mapping[str, Image.Image], step: int) -> None:
    """Send RGB pictures of a step, by their names of letters, digits and slashes."""
    for name, picture in pictures.items():
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(name, np.asarray(picture), step, dataformats="HWC")
        elif isinstance(logger, MLFlowLogger):
            logger.experiment.log_image(logger.run_id, np.asarray(picture), key=name, step=step)
        else:
            logger.log_image(name, [picture], step=step)  # type: ignore[attr-defined]


def send_settings(logger: Logger, settings: Mapping[str, Any]) -> None:
    """Send what a training began with: to all but those that have it as a file, or take it with the scores alone."""
    if not isinstance(logger, CSVLogger | TensorBoardLogger):
        logger.log_hyperparams(dict(settings))


def send_final(logger: Logger, settings: Mapping[str, Any], final: Mapping[str, float], step: int) -> None:
    """Send settings and final scores together to TensorBoard, whose table of runs has a row of both."""
    if isinstance(logger, TensorBoardLogger):
        logger.log_hyperparams(dict(settings), metrics=dict(final), step=step)
