"""Several processes train as one: sums and moments over all of them, and the whole of it with real processes."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
import torch.nn.functional as F
from torch import Tensor, nn

from fcnseg import create_model
from fcnseg.models.dropout import SampleDropout
from fcnseg.training import SegmentationModule
from fcnseg.training.losses import CrossEntropy
from fcnseg.training.processes import batch_norm, count_processes, synchronised_statistics

SCRIPT = Path(__file__).parents[2] / "scripts" / "same_training.py"
PARTS = ([0, 2, 3], [1])
"""Which samples each of two processes holds, not equally many."""


def moments(count: int = 4) -> tuple[Tensor, Tensor]:
    """(count, 3, 5, 7) values far from zero mean, and a gradient from above."""
    random = torch.Generator().manual_seed(0)
    values, above = (torch.randn(count, 3, 5, 7, generator=random, dtype=torch.float64) for _ in range(2))
    return values * torch.tensor([0.1, 1, 30]).view(1, 3, 1, 1) + 5, above


def normalised(values: Tensor, above: Tensor, momentum: float | None) -> list[Tensor]:
    """What a layer of torch's gives: output, gradients of input, weight and bias, running mean and variance."""
    torch.manual_seed(1)
    layer = nn.BatchNorm2d(3, momentum=momentum).double()
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    values = values.clone().requires_grad_()
    with synchronised_statistics():
        out = layer(values)
    out.backward(above)
    found = [out.detach(), values.grad, layer.weight.grad, layer.bias.grad, layer.running_mean, layer.running_var]
    return [part for part in found if part is not None]


def half(rank: int, folder: Path, momentum: float | None) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    values, above = moments()
    torch.save(normalised(values[PARTS[rank]], above[PARTS[rank]], momentum), folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("momentum", [0.1, 0.0, None])
def test_batch_normalisation_over_two_processes_is_torchs_over_the_whole_batch(
    tmp_path: Path, momentum: float | None
) -> None:
    """With three samples in one process and one in the other; forward, backward and running statistics."""
    torch.multiprocessing.start_processes(half, (tmp_path, momentum), nprocs=2, start_method="fork")
    whole = normalised(*moments(), momentum)
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    order = torch.tensor([*PARTS[0], *PARTS[1]]).argsort()
    for expected, *both in zip(whole[:2], *(part[:2] for part in parts), strict=True):
        torch.testing.assert_close(torch.cat(both)[order], expected)
    for expected, *both in zip(whole[2:4], *(part[2:4] for part in parts), strict=True):
        torch.testing.assert_close(sum(both), expected)
    for expected, *both in zip(whole[4:], *(part[4:] for part in parts), strict=True):
        for one in both:
            torch.testing.assert_close(one, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_moments_are_torchs_in_any_precision(dtype: torch.dtype) -> None:
    values = moments()[0].to(dtype)
    means, variances = torch.zeros(2, 3), torch.ones(2, 3)
    ours = batch_norm(values, means[0], variances[0], torch.ones(3), torch.zeros(3), True, 0.1)
    theirs = F.batch_norm(values, means[1], variances[1], torch.ones(3), torch.zeros(3), True, 0.1)
    assert ours.dtype == theirs.dtype == dtype
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(means[0], means[1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(variances[0], variances[1], rtol=1e-4, atol=1e-4)


def test_one_process_computes_with_torchs_own() -> None:
    values, above = moments()
    assert count_processes() == 1
    found = normalised(values, above, 0.1)
    torch.manual_seed(1)
    layer = nn.BatchNorm2d(3).double()
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    assert torch.equal(found[0], layer(values))


# Images of several sizes

BATCHES = (((5, 7), (40, 30)), ((20, 9), (3, 4)))
"""(height, width) of the one image that each of two processes has in each of two batches."""


def masks() -> list[list[Tensor]]:
    random = torch.Generator().manual_seed(0)
    return [[torch.randint(3, (1, *size), generator=random) for size in batch] for batch in BATCHES]


def logits_of(bias: Tensor, mask: Tensor) -> Tensor:
    return bias.view(1, 3, 1, 1).expand(1, 3, *mask.shape[-2:])


def accumulated(rank: int, folder: Path) -> None:
    """One process's part of a step over both batches; its gradient is averaged as DDP does."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    module = SegmentationModule(create_model("fcn32s_alexnet", num_classes=3, width=0.05))
    module._trainer = SimpleNamespace(accumulate_grad_batches=2)
    bias = module.bias = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    for batch in masks():
        loss, _ = module._over_all_processes(CrossEntropy(), [logits_of(bias, batch[rank])], batch[rank], None)
        (loss / 2).backward()  # Lightning divides by the number of batches
    dist.all_reduce(bias.grad)
    bias.grad /= 2
    module.on_before_optimizer_step(None)
    torch.save(bias.grad, folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_gradients_accumulated_over_images_of_several_sizes_are_those_of_one_mean(tmp_path: Path) -> None:
    torch.multiprocessing.start_processes(accumulated, (tmp_path,), nprocs=2, start_method="fork")
    bias = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    pairs = [(logits_of(bias, mask).flatten(2), mask.flatten(1)) for batch in masks() for mask in batch]
    logits, labels = torch.cat([logits for logits, _ in pairs], 2), torch.cat([labels for _, labels in pairs], 1)
    (expected,) = torch.autograd.grad(F.cross_entropy(logits, labels), bias)
    for rank in (0, 1):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pt"), expected)


# Dropout


def test_a_sample_loses_the_same_units_whatever_stands_beside_it() -> None:
    dropout, values = SampleDropout(0.3), torch.ones(4, 50, 3, 3)
    with dropout.seeded([11, 12, 13, 14], values.device):
        whole = [dropout(values), dropout(values)]
    for part in ([2], [3, 0], [1, 2]):
        with dropout.seeded([11 + place for place in part], values.device):
            for expected in whole:
                assert torch.equal(dropout(values[part]), expected[part])
    assert not torch.equal(whole[0], whole[1]), "the layers drop others"
    assert len({sample.numpy().tobytes() for sample in whole[0]}) == 4, "and so do the samples"


def test_dropout_keeps_the_mean_and_the_share() -> None:
    dropout, values = SampleDropout(0.3), torch.ones(8, 4000)
    with dropout.seeded(range(8), values.device):
        dropped = dropout(values)
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert float((dropped == 0).float().mean()) == pytest.approx(0.3, abs=0.01)
    assert float(dropped.mean()) == pytest.approx(1, abs=0.02)


def test_without_seeds_or_training_dropout_is_torchs() -> None:
    dropout, values = SampleDropout(0.5), torch.ones(2, 30)
    torch.manual_seed(3)
    ours = dropout(values)
    torch.manual_seed(3)
    assert torch.equal(ours, F.dropout(values, 0.5))
    with dropout.seeded([1, 2], values.device):
        assert torch.equal(dropout.eval()(values), values)
        with pytest.raises(ValueError, match="2 seeds for 3 samples"):
            dropout.train()(torch.ones(3, 30))


# The whole of it


@pytest.mark.slow
def test_two_processes_end_with_the_weights_of_one(tmp_path: Path) -> None:
    """With dropout and very unequal ignored areas: after 10 steps to 1e-5 of the weights, in float64 to the last.

    The one process has batches in one piece, also where the two have theirs in three micro-batches.
    """
    script = runpy.run_path(str(SCRIPT))
    trainings = [
        ("batch normalisation and dropout", "32-true", 10, None),
        ("batch normalisation and dropout", "64-true", 3, None),
        ("class weights", "32-true", 3, None),
        ("accumulated gradients", "32-true", 2, None),
        ("activations computed twice", "64-true", 2, None),
        ("at most 2 images at once", "64-true", 2, None),
        ("domain weights, at most 2 at once", "32-true", 2, None),
        ("summed loss, at most 2 at once", "64-true", 2, None),
    ]
    whole = [(script["SETTINGS"][name].get("against", name), *rest) for name, *rest in trainings]
    for number, training in enumerate(whole):
        script["train"](1, *training, tmp_path / f"{number} alone.pt")
    alone = [torch.load(tmp_path / f"{number} alone.pt", weights_only=True) for number in range(len(whole))]
    together = script["run"](2, trainings, tmp_path)
    for (setting, precision, *_), one, two in zip(trainings, alone, together, strict=True):
        weights, way, losses = script["compare"](one, two)
        assert weights < (1e-12 if precision == "64-true" else 1e-5), setting
        assert way < (1e-12 if precision == "64-true" else 1e-4), setting
        assert losses < 1e-4, setting
        moved = torch.cat([(one["ended"][name] - value).flatten().float() for name, value in one["began"].items()])
        assert moved.norm() > 1e-3, "there is something to compare"
