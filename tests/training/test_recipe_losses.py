"""Smoothed, focal, hard-pixel, Dice and Lovász losses: against formulas, libraries, and one process against several."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
import torch.multiprocessing
import torch.nn.functional as F

from fcnseg.errors import InputError
from fcnseg.training.hard_pixels import Focal, HardPixels
from fcnseg.training.losses import CrossEntropy, SegmentationLoss
from fcnseg.training.micro_batches import weigh
from fcnseg.training.regions import Dice, Lovasz
from tests.training.test_losses import NAMES, PIXELS, WEIGHTS, batch, three_images
from tests.training.test_micro_batches import state, train

Make = Callable[..., SegmentationLoss]
LOSSES: dict[str, Make] = {
    "smoothed": partial(CrossEntropy, label_smoothing=0.1),
    "focal": Focal,
    "ohem": HardPixels,
    "dice": Dice,
    "dice alone": partial(Dice, cross_entropy=0),
    "lovasz": Lovasz,
}
WEIGHTED = {name: make for name, make in LOSSES.items() if name != "dice alone"}
pytestmark = pytest.mark.filterwarnings("ignore:The dirpath has changed")


def all_of(make: dict[str, Make]) -> Any:
    return pytest.mark.parametrize("make", make.values(), ids=list(make))


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_smoothing_is_torchs(weights: list[float] | None) -> None:
    logits, mask = batch()
    tensor = None if weights is None else torch.tensor(weights, dtype=torch.float32)
    loss = CrossEntropy("median_frequency" if weights else "none", lambda: PIXELS, label_smoothing=0.2)
    expected = F.cross_entropy(logits, mask, tensor, ignore_index=255, label_smoothing=0.2)
    torch.testing.assert_close(loss(logits, mask), expected)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_by_its_formula(gamma: float) -> None:
    logits, mask = batch()
    p = logits.detach().double().softmax(1).numpy()
    own = np.array([p[n, k, y, x] for (n, y, x), k in np.ndenumerate(mask.numpy()) if k != 255])
    weights = np.array([WEIGHTS[k] for k in mask.numpy().ravel() if k != 255])
    expected = (weights * (1 - own) ** gamma * -np.log(own)).sum() / weights.sum()
    loss = Focal(gamma, class_weights="median_frequency", class_pixels=lambda: PIXELS)(logits, mask)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_focal_of_certain_pixels_has_finite_gradients() -> None:
    logits = torch.tensor([200.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 2, 2).clone().requires_grad_()
    Focal(0.5)(logits, torch.zeros(1, 2, 2, dtype=torch.long)).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("weights", [[1.0] * 4, WEIGHTS])
def test_hard_pixels_are_each_images_costliest(weights: list[float]) -> None:
    logits, mask = batch()
    mask[1, 2:] = 255
    costs = -np.log(logits.detach().double().softmax(1).numpy())
    total = weight = 0.0
    for n in range(2):
        found = [(costs[n, k, y, x], weights[k]) for (y, x), k in np.ndenumerate(mask[n].numpy()) if k != 255]
        hardest = sorted(found, reverse=True)[: math.ceil(0.3 * len(found))]
        total += sum(cost * w for cost, w in hardest)
        weight += sum(w for _, w in found) * len(hardest) / len(found)
    name = "none" if weights[0] == 1 else "median_frequency"
    loss = HardPixels(0.3, class_weights=name, class_pixels=lambda: PIXELS)(logits, mask)
    assert loss.item() == pytest.approx(total / weight, rel=1e-5)


@pytest.mark.parametrize("make", [partial(Focal, 0.0), partial(HardPixels, 1.0)])
@pytest.mark.parametrize("name", ["none", "median_frequency"])
def test_at_one_end_they_are_cross_entropy(make: Make, name: str) -> None:
    logits, mask = batch()
    one, other = (kind(class_weights=name, class_pixels=lambda: PIXELS)(logits, mask) for kind in (make, CrossEntropy))
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Dice(smooth=0, cross_entropy=0), smp.losses.DiceLoss("multiclass", smooth=0, ignore_index=255)),
        (Lovasz(cross_entropy=0), smp.losses.LovaszLoss("multiclass", per_image=True, ignore_index=255)),
    ],
)
def test_regions_are_those_of_a_library_image_by_image(ours: SegmentationLoss, theirs: Any) -> None:
    """smp's Dice is the mean over all classes, 0 for absent ones; ours that over those which are there."""
    logits, mask = batch()
    mask[1][mask[1] == 2] = 255
    expected = []
    for n in range(2):
        present = len(set(mask[n].unique().tolist()) - {255})
        share = 4 / present if isinstance(ours, Dice) else 1
        expected.append(theirs(logits[n : n + 1], mask[n : n + 1]) * share)
    whole = torch.stack(expected).mean()
    torch.testing.assert_close(ours(logits, mask), whole)
    gradients = [torch.autograd.grad(value, logits, retain_graph=True)[0] for value in (ours(logits, mask), whole)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-7)


def test_lovasz_of_decided_predictions_is_one_minus_the_mean_iou() -> None:
    """The extension of a function is that function at the corners of the cube."""
    _, mask = batch()
    predicted = torch.randint(0, 4, mask[:1].shape, generator=torch.Generator().manual_seed(1))
    logits = F.one_hot(predicted, 4).movedim(3, 1) * 1000.0
    kept = mask[0] != 255
    overlaps = [
        ((predicted[0] == k) & (mask[0] == k)).sum() / (((predicted[0] == k) | (mask[0] == k)) & kept).sum()
        for k in range(3)
    ]
    loss = Lovasz(cross_entropy=0)(logits, mask[:1])
    assert loss.item() == pytest.approx(1 - float(sum(overlaps)) / 3, rel=1e-5)


def test_beside_a_region_stands_each_images_mean_cross_entropy() -> None:
    logits, mask = batch()
    options = {"class_weights": "median_frequency", "class_pixels": lambda: PIXELS}
    both, alone = Dice(cross_entropy=0.5, **options)(logits, mask), Dice(cross_entropy=0)(logits, mask)
    pixels = torch.stack([CrossEntropy(**options)(logits[n : n + 1], mask[n : n + 1]) for n in range(2)])
    torch.testing.assert_close(both, alone + 0.5 * pixels.mean())


@all_of(LOSSES)
def test_images_without_a_label_count_nowhere(make: Make) -> None:
    logits, mask = batch()
    mask[1] = 255
    (gradient,) = torch.autograd.grad(make()(logits, mask), logits, retain_graph=True)
    torch.testing.assert_close(make()(logits, mask), make()(logits[:1], mask[:1]))
    assert gradient.isfinite().all()
    assert not gradient[1].any()
    assert not gradient.movedim(1, 3)[mask == 255].any()
    nothing = make()(logits, torch.full_like(mask, 255))
    (gradient,) = torch.autograd.grad(nothing, logits)
    assert nothing.item() == 0
    assert not gradient.any()


@all_of(WEIGHTED)
def test_a_domain_has_its_own_mean(make: Make) -> None:
    logits, mask = three_images()
    loss = make(class_weights="median_frequency", class_pixels=lambda: PIXELS, domains=NAMES)
    means = loss.per_domain_means(logits, mask, torch.tensor([0, 0, 2]))
    torch.testing.assert_close(means[0], loss(logits[:2], mask[:2]))
    torch.testing.assert_close(means[2], loss(logits[2:], mask[2:]))
    assert means[1] == 0


def share_of_two(rank: int, folder: Path) -> None:
    """What one of two processes, with images 0 and 2 or 1 alone, adds to every loss, and its gradient."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    logits, mask = torch.load(folder / "batch.pt")
    mine = [[0, 2], [1]][rank]
    logits, found = logits[mine].requires_grad_(), {}
    for name, make in LOSSES.items():
        loss = make(domains=NAMES)
        part = loss.sum(logits, mask[mine]) / weigh(loss, [mask[mine]], [torch.zeros(len(mine))]).weight
        found[name] = part.detach(), torch.autograd.grad(part, logits)[0]
    torch.save(found, folder / f"{rank}.pt")


def test_two_processes_have_together_the_loss_of_one(tmp_path: Path) -> None:
    logits, mask = three_images()
    torch.save((logits.detach(), mask), tmp_path / "batch.pt")
    torch.multiprocessing.start_processes(share_of_two, (tmp_path,), nprocs=2, start_method="fork")
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for name, make in LOSSES.items():
        whole = make()(logits, mask)
        (gradient,) = torch.autograd.grad(whole, logits)
        torch.testing.assert_close(first[name][0] + second[name][0], whole.detach())
        parts = torch.stack([first[name][1][0], second[name][1][0], first[name][1][1]])
        torch.testing.assert_close(parts, gradient)


@all_of({"dice": Dice})
def test_micro_batches_train_as_one_batch(make: Make, tmp_path: Path) -> None:
    weights = {"real": 0.6, "synthetic": 0.4}
    loss = partial(make, domains=tuple(weights), domain_weights=weights)
    train(tmp_path / "whole", None, loss=loss())
    train(tmp_path / "parts", 4, loss=loss())
    for name, value in state(tmp_path / "whole").items():
        torch.testing.assert_close(state(tmp_path / "parts")[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CrossEntropy(label_smoothing=2), r"loss\.label_smoothing=2: expected a number from 0 to 1"),
        (lambda: Focal(-1), r"loss\.gamma=-1: expected a number from 0 on"),
        (lambda: HardPixels(0), r"loss\.share=0: expected a number"),
        (lambda: HardPixels(label_smoothing=0.1), r"goes with loss=cross_entropy"),
        (lambda: Dice(smooth="much"), r"loss\.smooth='much': expected a number from 0 on"),
        (lambda: Lovasz(cross_entropy=-1), r"loss\.cross_entropy=-1: expected a number from 0 on"),
        (
            lambda: Dice(cross_entropy=0, class_weights="median_frequency", class_pixels=lambda: PIXELS),
            r"loss\.class_weights=median_frequency: weighs the pixels of a cross-entropy, and loss\.cross_entropy=0",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        make()
    assert "\n" not in str(refused.value)
