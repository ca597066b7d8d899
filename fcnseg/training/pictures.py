"""Pictures of each validation, for loggers that take them: a few images with their predictions, and the confusions."""

from collections.abc import Mapping
from functools import cache, partial
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from fcnseg.data.display import displayable
from fcnseg.errors import InputError
from fcnseg.evaluation.report import confusion_figure
from fcnseg.inference.overlay import add_legend, blend
from fcnseg.inference.predictor import label_space_of
from fcnseg.labels import LabelSpace
from fcnseg.training.loggers import Recipients, send_pictures, takes_pictures

LEAST, MOST = 240, 640
"""Pixels of a panel's width, and of its longer side."""

PANELS = ("image", "label", "prediction")
GAP = 8


class Pictures(Callback):
    """Sends pictures to every logger that takes some, from the first process, after validations while training.

    "validation/1", "validation/2" and so on are the same images each time, spread evenly over those that the first
    process validates: the image, and label and prediction laid over it, with a legend. Predictions are those that
    were scored, so nothing is computed twice, and of a moving average of the weights they are the average's.
    "validation/confusion" is the confusion matrix of the whole set, in percent of each label. A logger that fails is
    told of in one line and sent no more; training goes on as it would without pictures, to the last bit.

    Args:
        images: how many; None or 0: the confusion matrix alone.
        every_n_validations: 2 leaves out every other one.

    Raises:
        InputError: for other numbers.
    """

    def __init__(self, images: int | None = 4, every_n_validations: int = 1) -> None:
        for name, value, least in (("images", images or 0, 0), ("every_n_validations", every_n_validations, 1)):
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise InputError(f"callbacks.pictures.{name}={value!r}: expected a whole number from {least} on")
        self.images, self.every_n_validations = images or 0, every_n_validations
        self._to: Recipients | None = None
        self._validations = 0
        self._wanted: dict[int, str] = {}  # places in the order of this process's images, and what they are called
        self._place = 0
        self._kept: dict[str, tuple[Tensor, Tensor, Tensor]] = {}

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._wanted, self._kept, self._place = {}, {}, 0
        if self._to is None:
            loggers = filter(takes_pictures, trainer.loggers) if trainer.is_global_zero else ()
            self._to = Recipients(loggers, "pictures")
        if self._is_due(trainer):
            self._wanted = {place: f"validation/{i}" for i, place in enumerate(places(trainer, self.images), start=1)}

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if isinstance(outputs, Mapping) and self._wanted:
            for row, prediction in enumerate(outputs["predictions"]):
                if name := self._wanted.get(self._place + row):
                    self._kept[name] = seen(batch, row), batch["mask"][row], prediction
            self._place += len(outputs["predictions"])

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_due(trainer) and self._to is not None:
            drawn = cache(partial(self._drawn, pl_module))  # once, however many loggers there are, where they may fail
            self._to.each(lambda logger: send_pictures(logger, drawn(), trainer.global_step))
        self._validations += not trainer.sanity_checking
        self._kept = {}

    def _is_due(self, trainer: Trainer) -> bool:
        due = not trainer.sanity_checking and self._validations % self.every_n_validations == 0
        return due and bool(self._to and self._to.left)

    def _drawn(self, module: Any) -> dict[str, Image.Image]:
        space = label_space_of(module.model)
        pictures = {}
        for name, parts in self._kept.items():
            image, label, prediction = map(as_array, parts)
            pictures[name] = side_by_side(image, label, prediction, space)
        if module.last_evaluation is not None:
            pictures["validation/confusion"] = confusion_picture(module.last_evaluation.confusion, space)
        return pictures


def places(trainer: Trainer, count: int) -> list[int]:
    """As many places, spread evenly over the samples that this process validates, or all where they are fewer."""
    loader: Any = trainer.val_dataloaders
    if not isinstance(loader, DataLoader) or not trainer.num_val_batches:
        return []
    samples = int(min(len(loader.sampler), trainer.num_val_batches[0] * (loader.batch_size or 1)))  # type: ignore[arg-type]
    count = min(count, samples)
    return [(2 * i + 1) * samples // (2 * count) for i in range(count)]


def seen(batch: Mapping[str, Any], row: int) -> Tensor:
    """(h, w, C) of an image of a validation batch, as the network sees it, without padding."""
    height, width = batch["shown"][row] if "shown" in batch else batch["image"][row].shape[-2:]
    return batch["image"][row][:, :height, :width].permute(1, 2, 0)


def as_array(part: Tensor) -> np.ndarray:
    """An (h, w, C) image as a picture, (h, w, 3) uint8; (H, W) class indices as uint8."""
    array = part.cpu().numpy()
    return displayable(array) if array.ndim == 3 else array.astype(np.uint8)


def side_by_side(image: np.ndarray, label: np.ndarray, prediction: np.ndarray, space: LabelSpace) -> Image.Image:
    """The image, and label and prediction over it, each called by its name, above a legend of their classes.

    Args:
        image: (h, w, 3) uint8; of another size than the masks, it is brought to theirs.
        label: (H, W) class indices, 255 where ignored.
        prediction: (H, W) class indices.
        space: names and colours.
    """
    height, width = label.shape
    factor = min(max(LEAST / width, 1), MOST / max(height, width))
    height, width = max(round(height * factor), 1), max(round(width * factor), 1)
    picture = Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS)
    masks = [
        np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))
        for mask in (label, prediction)
    ]
    panels = [picture, *(blend(picture, mask, space, outline=True) for mask in masks)]

    size = max(width // 24, 12)
    font, top = ImageFont.load_default(size), round(size * 1.7)
    sheet = Image.new("RGB", (3 * width + 4 * GAP, top + height), "white")
    draw = ImageDraw.Draw(sheet)
    for column, (name, panel) in enumerate(zip(PANELS, panels, strict=True)):
        left = GAP + column * (width + GAP)
        draw.text((left, top // 2), name, fill=(20, 20, 20), font=font, anchor="lm")
        sheet.paste(panel, (left, top))
    return add_legend(sheet, space, present=np.unique(np.concatenate([label.ravel(), prediction.ravel()])))


def confusion_picture(confusion: np.ndarray, space: LabelSpace) -> Image.Image:
    """A (C, C) matrix of counts, rows = labels, as `save_confusion` draws it."""
    with BytesIO() as file:
        confusion_figure(confusion, space).savefig(file, format="png", dpi=100)
        return Image.open(file).convert("RGB")
