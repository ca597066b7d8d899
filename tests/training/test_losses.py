"""The loss against torch's own cross-entropy, and class weights against Eigen and Fergus by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing
import torch.nn.functional as F
from pytorch_lightning import Trainer

from fcnseg.data import CityScenes, SegmentationData
from fcnseg.errors import InputError
from fcnseg.models import create_model
from fcnseg.training import SegmentationModule
from fcnseg.training.losses import CrossEntropy, median_frequency_weights

# Image A has 6 pixels of class 0 and 2 of class 1, image B has 4 of class 0 and 4 of class 2, and class 3
# is in neither. Class 0 fills 10 of the 16 pixels of the images that show it, class 1 2 of 8, class 2 4 of 8:
# frequencies 0.625, 0.25 and 0.5 with the median 0.5.
PIXELS = np.array([[10, 16], [2, 8], [4, 8], [0, 0]], float)
WEIGHTS = [0.5 / 0.625, 0.5 / 0.25, 0.5 / 0.5, 0.0]


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """(2, 4, 5, 6) logits, and a mask of classes 0 to 2 with a third of its pixels ignored."""
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 4, 5, 6, generator=random, requires_grad=True)
    mask = torch.randint(0, 3, (2, 5, 6), generator=random)
    return logits, mask.masked_fill(torch.rand(2, 5, 6, generator=random) < 0.33, 255)


@pytest.mark.parametrize(
    ("name", "weights"),
    [("none", None), ("median_frequency", WEIGHTS), ("sqrt_median_frequency", np.sqrt(WEIGHTS))],
)
def test_it_is_torchs_mean_over_the_pixels_that_count(name: str, weights: list[float] | None) -> None:
    loss = CrossEntropy(name, class_pixels=lambda: PIXELS)
    as_tensor = None if weights is None else torch.tensor(weights, dtype=torch.float32)
    for seed in range(5):
        logits, mask = batch(seed)
        ours = loss(logits, mask)
        (gradient,) = torch.autograd.grad(ours, logits)
        expected = F.cross_entropy(logits, mask, as_tensor, ignore_index=255, reduction="mean")
        (expected_gradient,) = torch.autograd.grad(expected, logits)
        torch.testing.assert_close(ours, expected)
        torch.testing.assert_close(gradient, expected_gradient)
        assert not gradient.movedim(1, 3)[mask == 255].any()


@pytest.mark.parametrize(("name", "weights"), [("none", np.ones(4)), ("median_frequency", np.array(WEIGHTS))])
def test_the_gradient_of_the_sum_is_that_of_the_mean_times_the_labelled_pixels(name: str, weights: np.ndarray) -> None:
    logits, mask = batch()
    summed, averaged = (CrossEntropy(name, lambda: PIXELS, reduction)(logits, mask) for reduction in ("sum", "mean"))
    per_pixel = -np.log(logits.detach().double().softmax(1).numpy())
    by_hand = sum(
        weights[label] * per_pixel[n, label, y, x] for (n, y, x), label in np.ndenumerate(mask.numpy()) if label < 4
    )
    assert summed.item() == pytest.approx(by_hand, rel=1e-5)
    labelled = weights[mask[mask != 255].numpy()].sum()
    of_sum, of_mean = (torch.autograd.grad(loss, logits)[0] for loss in (summed, averaged))
    torch.testing.assert_close(of_sum, of_mean * labelled)


def test_the_mean_is_there_whatever_the_reduction() -> None:
    logits, mask = batch()
    assert torch.equal(CrossEntropy(reduction="sum").mean(logits, mask), CrossEntropy()(logits, mask))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("name", ["none", "median_frequency"])
def test_nothing_is_read_back_from_the_device(name: str, reduction: str) -> None:
    """Tensors on the meta device have no values: whoever reads one there, for a float or a size, fails."""
    logits, mask = batch()
    loss = CrossEntropy(name, lambda: PIXELS, reduction).to("meta")
    assert loss(logits.to("meta"), mask.to("meta")).shape == ()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("name", ["none", "median_frequency"])
def test_a_batch_without_labels_is_worth_zero_and_teaches_nothing(name: str, reduction: str) -> None:
    logits, mask = batch()
    loss = CrossEntropy(name, lambda: PIXELS, reduction)(logits, torch.full_like(mask, 255))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_a_batch_of_a_class_that_weighs_nothing_is_worth_zero() -> None:
    logits, mask = batch()
    loss = CrossEntropy("median_frequency", class_pixels=lambda: PIXELS)(logits, torch.full_like(mask, 3))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_equal_scores_cost_the_logarithm_of_the_number_of_classes() -> None:
    loss = CrossEntropy()(torch.zeros(1, 4, 2, 2), torch.tensor([[[0, 1], [255, 3]]]))
    assert loss.item() == pytest.approx(np.log(4))


def test_median_frequency_weights_by_hand() -> None:
    assert median_frequency_weights(PIXELS).tolist() == pytest.approx(WEIGHTS)


def test_the_median_is_over_the_classes_that_appear() -> None:
    # With frequencies 1/2, 1/4, 1/8, 1/16 the median lies half-way between the middle two.
    pixels = np.array([[8, 16], [0, 0], [4, 16], [2, 16], [0, 0], [1, 16]], float)
    weights = median_frequency_weights(pixels).tolist()
    assert weights == pytest.approx([0.1875 / f if f else 0 for f in (0.5, 0, 0.25, 0.125, 0, 0.0625)])


def test_without_any_labelled_pixel_there_are_no_weights() -> None:
    with pytest.raises(InputError, match="no labelled pixel in the training data"):
        median_frequency_weights(np.zeros((3, 2)))


def test_counting_happens_only_where_weights_are_asked_for() -> None:
    def count() -> np.ndarray:
        raise AssertionError("counted")

    assert CrossEntropy("none", class_pixels=count).weights is None
    with pytest.raises(AssertionError, match="counted"):
        CrossEntropy("median_frequency", class_pixels=count)


def test_weights_move_with_the_module_and_stay_out_of_checkpoints() -> None:
    loss = CrossEntropy("median_frequency", class_pixels=lambda: PIXELS)
    assert loss.state_dict() == {}
    assert loss.double().weights.dtype == torch.float64


def test_wrong_weightings_are_refused() -> None:
    with pytest.raises(InputError, match="'balanced': expected one of none, median_frequency, sqrt_median_frequency"):
        CrossEntropy("balanced")
    with pytest.raises(InputError, match="'median_frequency' needs class_pixels"):
        CrossEntropy("median_frequency")
    with pytest.raises(InputError, match="reduction 'none': expected one of mean, sum"):
        CrossEntropy(reduction="none")


# Domains

NAMES = "real", "synthetic", "rendered"


def brute_force_means(logits: torch.Tensor, mask: torch.Tensor, domain: list[int], weights: np.ndarray) -> list[float]:
    """Each domain's mean, pixel by pixel."""
    per_pixel = -np.log(logits.detach().double().softmax(1).numpy())
    result = []
    for index in range(len(NAMES)):
        pixels = [(at, k) for at, k in np.ndenumerate(mask.numpy()) if k != 255 and domain[at[0]] == index]
        total = sum(weights[k] * per_pixel[n, k, y, x] for (n, y, x), k in pixels)
        result.append(total / sum(weights[k] for _, k in pixels) if pixels else 0.0)
    return result


def three_images() -> tuple[torch.Tensor, torch.Tensor]:
    """Two of one domain and one of another, the second of the three with few labelled pixels."""
    logits, mask = (torch.cat([one, other[:1]]) for one, other in zip(batch(0), batch(1), strict=True))
    mask[1, :4] = 255
    return logits, mask


@pytest.mark.parametrize(("name", "weights"), [("none", np.ones(4)), ("median_frequency", np.array(WEIGHTS))])
@pytest.mark.parametrize("domain", [[0, 0, 2], [2, 1, 0], [1, 1, 1]])
def test_a_domain_has_the_mean_over_its_own_labelled_pixels(name: str, weights: np.ndarray, domain: list[int]) -> None:
    logits, mask = three_images()
    loss = CrossEntropy(name, lambda: PIXELS, domains=NAMES)
    means = loss.per_domain_means(logits, mask, torch.tensor(domain))
    assert means.tolist() == pytest.approx(brute_force_means(logits, mask, domain, weights), rel=1e-5)
    if domain == [1, 1, 1]:
        torch.testing.assert_close(means[1], loss(logits, mask))


def test_a_domain_whose_pixels_are_all_ignored_has_no_loss_and_no_gradient() -> None:
    logits, mask = three_images()
    mask[2] = 255
    means = CrossEntropy(domains=NAMES).per_domain_means(logits, mask, torch.tensor([0, 0, 1]))
    (gradient,) = torch.autograd.grad((means * torch.tensor([0.6, 0.4, 0])).sum(), logits)
    assert means[1:].tolist() == [0, 0]
    assert gradient.isfinite().all()
    assert not gradient[2].any()


def one_of_two(rank: int, folder: Path) -> None:
    """A process with images 0 and 2, or with image 1 alone."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    logits, mask = torch.load(folder / "batch.pt")
    mine = [[0, 2], [1]][rank]
    logits = logits[mine].requires_grad_()
    parts = CrossEntropy(domains=NAMES).per_domain_means(logits, mask[mine], torch.tensor([0, 0, 2])[mine])
    (gradient,) = torch.autograd.grad(0.6 * parts[0] + 0.4 * parts[2], logits)
    torch.save((parts.detach(), gradient), folder / f"{rank}.pt")


def test_processes_share_a_domains_mean_and_one_may_have_no_sample_of_it(tmp_path: Path) -> None:
    """Two processes, the second without the domain of the third image: together they are as one."""
    logits, mask = three_images()
    torch.save((logits.detach(), mask), tmp_path / "batch.pt")
    torch.multiprocessing.start_processes(one_of_two, (tmp_path,), nprocs=2, start_method="fork")
    (parts, gradient), (others, gradient_1) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    whole = CrossEntropy(domains=NAMES).per_domain_means(logits, mask, torch.tensor([0, 0, 2]))
    (expected,) = torch.autograd.grad(0.6 * whole[0] + 0.4 * whole[2], logits)
    torch.testing.assert_close(parts + others, whole.detach())
    assert others[2] == 0
    torch.testing.assert_close(torch.stack([gradient[0], gradient_1[0], gradient[1]]), expected)


@pytest.mark.parametrize(
    ("weights", "options", "message"),
    [
        ({"real": 1}, {}, "expected a weight for each of the domains real, synthetic, rendered"),
        (dict.fromkeys(NAMES, 0), {}, "expected numbers from 0 on, one of them above 0"),
        (dict.fromkeys(NAMES, -1), {}, "expected numbers from 0 on"),
        (dict.fromkeys(NAMES, "much"), {}, "expected numbers from 0 on"),
        (dict.fromkeys(NAMES, 1), {"reduction": "sum"}, "go with reduction=mean alone, not sum"),
    ],
)
def test_domain_weights_that_do_not_fit_are_refused_in_one_line(weights: dict, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        CrossEntropy(domain_weights=weights, domains=NAMES, **options)
    assert "\n" not in str(refused.value)


def test_training_computes_the_loss_of_a_pixel_once() -> None:
    """Also where each domain's own mean is logged beside the one over all."""

    class Counted(CrossEntropy):
        calls = 0

        def per_pixel(self, logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return super().per_pixel(logits, mask)

    scenes = {look: CityScenes(4, look=look, size=(24, 32)) for look in ("real", "synthetic")}
    data = SegmentationData(scenes, scenes["real"], size=(24, 32), batch_size=2, steps_per_epoch=3, num_workers=0)
    loss = Counted(domains=list(scenes))
    module = SegmentationModule(create_model("fcn32s_alexnet", num_classes=11, width=0.05), loss)
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "limit_val_batches": 0}
    trainer = Trainer(accelerator="cpu", max_epochs=1, use_distributed_sampler=False, **options)
    trainer.fit(module, data)
    assert loss.calls == 3
    assert {"train/loss_real", "train/loss_synthetic"} <= trainer.callback_metrics.keys()
