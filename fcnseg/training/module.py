"""The Lightning module: one FCN, its loss, its optimiser, and the scores of validation."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from fcnseg.errors import InputError
from fcnseg.evaluation.confusion import ConfusionMatrix, confusion_matrices
from fcnseg.evaluation.evaluator import UNLABELLED, Evaluation
from fcnseg.evaluation.metrics import Scores, scores, to_dict
from fcnseg.inference.predictor import label_space_of
from fcnseg.labels import IGNORE_INDEX, LabelSpace
from fcnseg.models import FCN, at_own_sizes, likeliest
from fcnseg.models.recomputing import frozen_statistics
from fcnseg.training.adaptation import Adaptation
from fcnseg.training.adaptation.method import require_pixels, require_whole, weighed
from fcnseg.training.collapse import largest_share
from fcnseg.training.losses import CrossEntropy, SegmentationLoss
from fcnseg.training.micro_batches import Whole, batch_number, micro_batches, recount, weigh
from fcnseg.training.optimisation import default_of, freeze_batch_norm, parameter_groups, require_factor
from fcnseg.training.processes import all_reduce_sum, count_processes, gathered, synchronised_statistics
from fcnseg.training.progress import ProgressBar
from fcnseg.training.strategies import shard

DOMAIN_STATISTICS = ("shared", "separate")

_RATES = {"backbone_lr_factor": 1.0, "frozen_batch_norm": False}
"""What checkpoints of before there was a choice were trained with."""

ADAPTATION = 1
"""A word that tells the chance of adaptation from that of dropout."""


class SegmentationModule(LightningModule):
    """Trains an FCN on batches of "image" (N, C, H, W) and "mask" (N, H, W).

    Validation is computed in float32 whatever the training precision, with masks in their own size, so
    that `fcnseg evaluate` and `fcnseg predict` give the same scores.

    Logs "train/loss", what is minimised, and "val/loss", the mean over the labelled pixels of each image,
    averaged over the images, whatever the loss does in training, and "val/largest_share", the share of the class that
    most pixels are predicted as. A loss that knows several `domains` gives
    "train/loss_NAME" too, the mean over the labelled pixels that a domain has in the batch, 0 where there are none.

    A batch is trained on as a whole, on however many processes it is spread: the loss is one mean over all of its
    labelled pixels, also where gradients are accumulated over several batches; batch normalisation takes the moments
    of all; and the head's dropout depends on the seed, the number of the batch and the sample's place in it alone. So
    a run that goes on from a checkpoint, also one from the midst of an epoch, drops what it would have dropped. All of
    it holds for batches in micro-batches (`SegmentationData.device_batch_size`), but for the moments of batch
    normalisation, which are those of a micro-batch of all processes.

    Args:
        model: the network; its spec is kept in every checkpoint.
        loss: a `SegmentationLoss`, cross-entropy by default; or any module of (logits, mask), whose values are averaged
            over processes and micro-batches. With a loss's `domain_weights`, batches whose gradients
            `accumulate_grad_batches` alone accumulates count alike.
        optimizer: makes the optimiser from parameter groups; for instance a partial of `torch.optim.SGD`.
        scheduler: makes the schedule from the optimiser and the number of steps; None: constant rate.
        bias_lr_factor: learning rate of convolution biases, relative to their weights'.
        backbone_lr_factor: learning rates of the trunk, relative to the head's: below 1 for a pretrained trunk under a
            new head; 0 leaves the trunk's weights as they are.
        frozen_batch_norm: batches are normalised by the statistics that the weights came with, and these and the
            layers' scales and shifts stay as they are, as for small batches over a pretrained trunk.
        training_data: plain values that describe it, kept in every checkpoint for the model's card.
        domain_statistics: "shared" normalises a batch by its statistics, domains together; "separate" each domain's
            part by its own, and keeps those of the first domain, the one that validation is on, for evaluation
            (domain-specific batch normalisation with shared scales and shifts, after Li et al., arXiv 1603.04779,
            and Chang et al., CVPR 2019).
        deep_supervision: weight of the loss of each of the coarser networks that are within this one, down to FCN-32s,
            beside its own: "train/loss" has them, "val/loss" has not (Lee et al., "Deeply-supervised nets", AISTATS
            2015). They are there in training alone.
        adaptation: what learns from images without labels, see `fcnseg.training.adaptation`. What it adds to
            "train/loss" is logged as "train/loss_adaptation".

    Raises:
        InputError: for other `domain_statistics` or factors, for frozen batch normalisation that is not there or would
            be separate, a `deep_supervision` below 0 or of an FCN-32s, or an adaptation that does not fit the loss; and
            when training starts, one that does not fit the trainer.
    """

    def __init__(
        self,
        model: FCN,
        loss: nn.Module | None = None,
        optimizer: Callable[..., Optimizer] = torch.optim.AdamW,
        scheduler: Callable[..., LRScheduler] | None = None,
        bias_lr_factor: float = 2.0,
        training_data: dict[str, Any] | None = None,
        domain_statistics: str = "shared",
        backbone_lr_factor: float = 1.0,
        frozen_batch_norm: bool = False,
        deep_supervision: float = 0.0,
        adaptation: Adaptation | None = None,
    ) -> None:
        super().__init__()
        _check_supervision(deep_supervision, model)
        if domain_statistics not in DOMAIN_STATISTICS:
            expected = " or ".join(DOMAIN_STATISTICS)
            raise InputError(f"domain_statistics {domain_statistics!r}: expected {expected}")
        if frozen_batch_norm and domain_statistics == "separate":
            raise InputError("frozen_batch_norm=true: nothing is left for domain_statistics=separate; expected shared")
        require_factor("bias_lr_factor", bias_lr_factor)
        require_factor("backbone_lr_factor", backbone_lr_factor)
        self.save_hyperparameters({"spec": model.spec.to_dict()})
        self.model = model
        self.loss = loss or CrossEntropy()
        self.optimizer, self.scheduler, self.bias_lr_factor = optimizer, scheduler, bias_lr_factor
        self.backbone_lr_factor = backbone_lr_factor
        self._frozen = freeze_batch_norm(model) if frozen_batch_norm else []
        self.confusion = ConfusionMatrix(model.spec.num_classes)
        self.last_scores: Scores | None = None
        self.last_evaluation: Evaluation | None = None
        self.training_data = training_data
        self.domain_statistics, self.deep_supervision = domain_statistics, deep_supervision
        self.adaptation = adaptation
        if adaptation is not None:
            require_pixels(self.loss)
            adaptation.begin(model)
        self._scored_at: dict[str, int] | None = None
        self._evaluated_after = -1
        self.seed = 0
        self._adapted = 0  # steps that the adaptation has followed
        self._accumulated: list[Tensor] = []  # weights of the batches since the last step of the optimiser
        self._accumulated_pixels = 1.0
        self._whole: Whole | None = None  # of a batch in micro-batches
        self._summed: dict[str, Tensor] = {}  # what its micro-batches have added to its losses
        self._validation_loss = torch.zeros(2, dtype=torch.float64)
        self._validated: list[tuple[int, str, np.ndarray]] = []

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) images in file values to (N, num_classes, H, W) logits."""
        return self.model(self.model.normalise(images))

    def on_fit_start(self) -> None:
        self.seed = self.trainer.strategy.broadcast(torch.initial_seed())
        if self.adaptation is not None:
            require_whole(self.trainer)

    def on_train_start(self) -> None:
        self._adapted = self.global_step

    def on_train_batch_start(self, batch: Any, batch_index: int) -> None:
        torch.manual_seed(self._random_number(self._places()[0]))  # of whatever is random beside the head's dropout

    def _random_number(self, *words: int) -> int:
        """A number that belongs to this batch of this training and to further words."""
        step = batch_number(self.trainer) if self._trainer else 0
        return int(np.random.SeedSequence([self.seed, step, *words]).generate_state(1)[0])

    def _places(self) -> tuple[int, int]:
        """(first, step) of the places, in the whole batch, of the samples that this process is given at once."""
        processes, count = count_processes(), micro_batches(self.trainer) if self._trainer else 1
        number = self.trainer.fit_loop.total_batch_idx % count if count > 1 else 0
        return self.global_rank + number * processes, processes * count

    def training_step(self, batch: dict[str, Any], batch_index: int) -> Tensor:
        if batch_index % self.trainer.accumulate_grad_batches == 0:
            self._accumulated = []
        if batch_index % micro_batches(self.trainer) == 0:
            self._summed, self._whole = {}, None
            if "whole" in batch and isinstance(self.loss, SegmentationLoss):
                self._whole = weigh(self.loss, batch["whole"]["mask"], batch["whole"]["domain"])
        if self.adaptation is not None:
            batch = self.adaptation.prepare(batch, self._seeds(range(len(batch["image"])), ADAPTATION))
        heads, mask = self._heads(batch), batch["mask"]
        if isinstance(self.loss, SegmentationLoss):
            domain, weight = batch.get("domain"), batch.get("pixel_weight")
            loss, shown = self._over_all_processes(self.loss, heads, mask, domain, weight)
        else:
            loss = self._of_heads(self.loss, heads, mask)
            shown = all_reduce_sum(loss.detach().clone()) / (count_processes() * micro_batches(self.trainer))
        bar = self.trainer.progress_bar_callback  # for others than ours Lightning reads what is logged in each step
        options = {"prog_bar": not isinstance(bar, ProgressBar), "batch_size": len(batch["image"])}
        if self.adaptation is not None and (added := self.adaptation.loss(heads[0], batch)) is not None:
            loss, whole = loss + added * count_processes(), all_reduce_sum(added.detach().clone())
            self.log("train/loss_adaptation", whole)
            shown = shown + whole
        self._log_whole({"train/loss": shown}, **options)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_index: int) -> None:
        if self.adaptation is not None and self.global_step > self._adapted:
            self.adaptation.after_step(self.model, self.global_step)
            self._adapted = self.global_step

    def _log_whole(self, values: dict[str, Tensor], **options: Any) -> None:
        """Log what the micro-batches of a batch have come to, once the last one has added its part."""
        for name, value in values.items():
            self._summed[name] = self._summed.get(name, 0) + value
        if (self.trainer.fit_loop.total_batch_idx + 1) % micro_batches(self.trainer) == 0:
            self.log_dict({name: self._summed[name] for name in values}, **options)

    def _over_all_processes(
        self,
        criterion: SegmentationLoss,
        heads: Sequence[Tensor],
        mask: Tensor,
        domain: Tensor | None,
        pixel_weight: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """What this process minimises, and the loss of the whole batch, or what a micro-batch adds to it.

        Processes and micro-batches average their gradients, and each has seen a part of the batch: times their number
        the average is the sum, over weights that are those of the whole batch.
        """
        shares = count_processes() * micro_batches(self.trainer)
        weights, known = criterion.domain_weights, self._whole
        sums = self._of_heads(weighed(criterion, pixel_weight), heads, mask)
        pixels = criterion.weight_per_sample(mask)
        if domain is not None and (weights is not None or len(criterion.domains) > 1):
            counted = sums if weights is not None else sums.detach()
            parts = criterion.means_of_domains(counted, pixels, domain, known.of_domains if known else None)
            means = all_reduce_sum(parts.detach().clone())
            named = {f"train/loss_{name}": mean for name, mean in zip(criterion.domains, means, strict=True)}
            self._log_whole(named)
            if weights is not None:
                return (weights * parts).sum() * shares, (weights * means).sum()
        total = sums.sum()
        whole = all_reduce_sum(total.detach().clone())
        if criterion.reduction == "sum":
            return total * shares, whole
        weight = known.weight if known else all_reduce_sum(pixels.sum())
        weight = weight.to(total.dtype).clamp(min=1e-12)
        if known or self.trainer.accumulate_grad_batches == 1:
            return total * shares / weight, whole / weight
        if not self._accumulated:
            # Any number will do, the same for all of the batches and in all of the processes, whose images may differ.
            pixels_each = torch.tensor(float(mask[0].numel()), dtype=torch.float64, device=mask.device)
            self._accumulated_pixels = float(all_reduce_sum(pixels_each)) / shares
        self._accumulated.append(weight)
        return total * shares / self._accumulated_pixels, whole / weight

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Make gradients that were accumulated over several batches those of one mean over all of their pixels."""
        if not self._accumulated:
            return
        pixels = self._accumulated_pixels
        factor = pixels * self.trainer.accumulate_grad_batches / sum(self._accumulated)
        for parameter in self.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(factor)

    def training_logits(self, batch: dict[str, Any]) -> Tensor:
        """(N, num_classes, H, W) logits of a training batch, in float32 or float64."""
        return self._heads(batch)[0]

    def _of_heads(self, loss: Callable[[Tensor, Tensor], Tensor], heads: Sequence[Tensor], mask: Tensor) -> Tensor:
        """A loss of the logits, and what those of coarser networks add to it."""
        value = loss(heads[0], mask)
        for coarser in heads[1:]:
            value = value + self.deep_supervision * loss(coarser, mask)
        return value

    def _heads(self, batch: dict[str, Any]) -> list[Tensor]:
        """The logits of a training batch, with `deep_supervision` followed by those of the coarser networks."""
        images = batch["image"]
        for layer in self._frozen:
            layer.eval()
        if self.domain_statistics == "shared":
            return self._seeded_heads(images, range(len(images)))
        parts = [(batch["domain"] == domain).nonzero()[:, 0] for domain in range(int(batch["domain"].max()) + 1)]
        found = []
        for domain, part in enumerate(parts):
            if not len(part):
                continue
            with frozen_statistics(self.model) if domain else nullcontext():
                found.append(self._seeded_heads(images[part], part.tolist()))
        order = torch.cat(parts).argsort()
        return [torch.cat(logits)[order] for logits in zip(*found, strict=True)]

    def _seeded_heads(self, images: Tensor, places: Sequence[int]) -> list[Tensor]:
        """Logits of images at these places of what this process is given at once, with the dropout of each image.

        Of the whole batch that is every n-th sample, see `fcnseg.data.bgc`.
        """
        seeds = self._seeds(places)
        with self.model.dropout.seeded(seeds, images.device), synchronised_statistics():
            heads = self.model.each_network(self.model.normalise(images)) if self.deep_supervision else [self(images)]
        return [logits.to(torch.promote_types(logits.dtype, torch.float32)) for logits in heads]

    def _seeds(self, places: Iterable[int], *words: int) -> list[int]:
        """A number for each sample of what this process is given at once, which its place in the batch decides."""
        first, step = self._places()
        return [self._random_number(first + place * step, *words) for place in places]

    def on_validation_epoch_start(self) -> None:
        self._validation_loss = torch.zeros(2, dtype=torch.float64, device=self.device)
        self._validated, self.last_evaluation = [], None

    def validation_step(self, batch: dict[str, Any], batch_index: int) -> dict[str, Any]:
        """Score a batch; gives its "predictions", a (H, W) mask in the label's size for each image, to callbacks."""
        loss = self.loss.mean if isinstance(self.loss, SegmentationLoss) else self.loss
        predictions, masks = [], batch["mask"]
        with torch.autocast(self.device.type, enabled=False):
            logits = self.model.logits(batch["image"])
            own = at_own_sizes(logits, [mask.shape for mask in masks], batch.get("shown"))
            for full, mask in zip(own, masks, strict=True):
                predictions.append(likeliest(full)[0])
                labelled = (mask != IGNORE_INDEX).any()
                self._validation_loss += torch.stack([loss(full, mask[None]) * labelled, labelled])
        matrices = confusion_matrices(predictions, masks, self.model.spec.num_classes)
        self.confusion.update(matrices)
        self._validated += zip(batch["index"], batch["name"], matrices.cpu().numpy(), strict=True)
        return {"predictions": predictions}

    def on_validation_epoch_end(self) -> None:
        confusion = self.confusion.compute()
        self.last_scores, largest = scores(confusion), largest_share(confusion)
        self.confusion.reset()
        total, images = all_reduce_sum(self._validation_loss)
        if not self.trainer.sanity_checking:
            if not images:
                raise InputError(UNLABELLED)
            self._scored_at = {"step": self.global_step, "epoch": self.current_epoch}
            self._keep_evaluation()
        # Every process has the whole matrix and sum by now; the values are equal and need no reduction.
        self.log("val/loss", (total / images.clamp(min=1)).float())
        for name in ("mean_iou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou"):
            value = torch.tensor(getattr(self.last_scores, name), dtype=torch.float32)
            self.log(f"val/{name}", value, prog_bar=name == "mean_iou")
        self.log("val/largest_share", largest)

    def _keep_evaluation(self) -> None:
        """Each image's confusions, of all processes: an index below 0 stands for no image, see `SegmentationData`."""
        found = {index: (name, matrix) for index, name, matrix in gathered(self._validated) if index >= 0}
        names, matrices = zip(*(found[index] for index in sorted(found)), strict=True)
        self.last_evaluation = Evaluation(np.stack(matrices), names, label_space_of(self.model))
        self._evaluated_after, self._validated = self._batches(), []

    def _batches(self) -> int:
        """Of training, so far."""
        return int(self.trainer.fit_loop.total_batch_idx)

    def current_evaluation(self, images: int) -> Evaluation | None:
        """That of the last validation, where it was of so many images and nothing was trained since."""
        found = self.last_evaluation
        return found if found and len(found.names) == images and self._evaluated_after == self._batches() else None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep with the weights what `FCN.provenance` tells of them: training data and last validation's scores."""
        told = {
            "training_data": self.training_data,
            "metrics": self._metrics(),
            "weights_source": self.model.provenance.get("weights_source"),
        }
        checkpoint["micro_batches"] = micro_batches(self.trainer)
        checkpoint |= self._rates()
        checkpoint["provenance"] = {key: value for key, value in told.items() if value is not None}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self._trainer and "loops" in checkpoint:
            for key, now in self._rates().items():
                if (then := checkpoint.get(key, _RATES[key])) != now:
                    raise InputError(f"resume: it began with {key}={then}, this run has {key}={now}")
            recount(checkpoint, micro_batches(self.trainer))

    def _rates(self) -> dict[str, Any]:
        """What divides the parameters into groups, without which an optimiser's state fits nothing."""
        return {"backbone_lr_factor": self.backbone_lr_factor, "frozen_batch_norm": bool(self._frozen)}

    def _metrics(self) -> dict[str, Any] | None:
        if self.last_scores is None or self._scored_at is None:
            return None
        count, space = self.model.spec.num_classes, self.model.spec.label_space
        unnamed = LabelSpace("numbered", tuple(map(str, range(count))), ((0, 0, 0),) * count)
        return to_dict(self.last_scores, LabelSpace(**space) if space else unnamed) | self._scored_at

    def configure_model(self) -> None:
        """Divide the network over processes where the strategy says so."""
        if self.device_mesh is not None:
            shard(self.model, self.device_mesh["data_parallel"])

    def configure_optimizers(self) -> Any:
        lr, decay = default_of(self.optimizer, "lr", 1e-3), default_of(self.optimizer, "weight_decay", 0.0)
        groups = parameter_groups(self.model, lr, decay, self.bias_lr_factor, self.backbone_lr_factor)
        optimizer = self.optimizer(groups)
        if self.scheduler is None:
            return optimizer
        schedule = self.scheduler(optimizer, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _check_supervision(weight: float, model: FCN) -> None:
    if not isinstance(weight, int | float) or isinstance(weight, bool) or not 0 <= weight < float("inf"):
        raise InputError(f"deep_supervision={weight!r}: expected a number from 0 on")
    if weight and len(model.fusions) == 1:
        raise InputError(f"deep_supervision={weight}: {model.spec.name} has no coarser network within; expected 0")
