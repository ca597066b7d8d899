"""The loss against torch's own cross-entropy, and class weights against Eigen and Fergus by hand."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fcnseg.errors import InputError
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
