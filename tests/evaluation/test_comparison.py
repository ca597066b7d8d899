"""The paired bootstrap against a loop, against a known truth, and where there is nothing to draw from."""

import math
import zipfile

import numpy as np
import pytest

from fcnseg.errors import InputError
from fcnseg.evaluation import bootstrap, load_matrices, paired_bootstrap, scores
from fcnseg.evaluation.comparison import save_matrices


def matrices(seeds: int, images: int, classes: int, seed: int, absent: int | None = None) -> np.ndarray:
    """Random counts, some images without some classes; `absent` is one that only image 0 has."""
    random = np.random.default_rng(seed)
    counts = random.integers(0, 50, (seeds, images, classes, classes))
    here = random.random((images, classes)) < 0.7
    here[0] = True
    if absent is not None:
        here[1:, absent] = False
    return counts * here[None, :, :, None] * here[None, :, None, :]


def by_loop(a: np.ndarray, b: np.ndarray, blocks: int | None, samples: int, seed: int) -> np.ndarray:
    """(samples, 1 + C) differences, one resample, one seed and one image at a time."""
    seeds, images = a.shape[:2]
    random = np.random.default_rng(seed)
    drawn_seeds = random.integers(seeds, size=(samples, max(seeds - 1, 1)))
    length = round(images / (blocks or images))
    starts = random.integers(images, size=(samples, round(images / length)))
    rows = []
    for sample in range(samples):
        chosen = [(start + i) % images for start in starts[sample] for i in range(length)]
        found = []
        for s in drawn_seeds[sample]:
            sums = [sum(method[s, i] for i in chosen) for method in (a, b)]
            before, after = map(scores, sums)
            found.append([after.mean_iou - before.mean_iou, *np.subtract(after.iou, before.iou)])
        columns = [[v for v in column if not math.isnan(v)] for column in zip(*found, strict=True)]
        rows.append([sum(c) / len(c) if c else math.nan for c in columns])
    return np.array(rows)


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize(("seeds", "images", "blocks"), [(3, 12, 4), (2, 13, 4), (1, 9, None), (4, 5, 1)])
def test_intervals_are_those_of_a_loop(seeds, images, blocks):
    a, b = matrices(seeds, images, 4, 0, absent=2), matrices(seeds, images, 4, 1, absent=2)
    result = paired_bootstrap(a, b, blocks=blocks, samples=50, level=0.8, seed=7)
    looped = by_loop(a, b, blocks, 50, seed=7)
    assert blocks == 1 or np.isnan(looped[:, 3]).any(), "the rare class must be missing from some resamples"
    for column, interval in zip(looped.T, (result.mean_iou, *result.iou), strict=True):
        known = column[~np.isnan(column)]
        np.testing.assert_allclose([interval.low, interval.high], np.quantile(known, [0.1, 0.9]), atol=1e-12)
    whole = [[scores(m[s].sum(0)) for s in range(seeds)] for m in (a, b)]
    expected = np.mean([after.mean_iou - before.mean_iou for before, after in zip(*whole, strict=True)])
    assert result.mean_iou.value == pytest.approx(expected)


@pytest.mark.parametrize(("seeds", "images", "blocks"), [(3, 12, 4), (1, 9, None)])
def test_the_interval_of_one_method_is_that_of_a_loop(seeds, images, blocks):
    """Which is written for two: the other is wrong everywhere, and has a mean IoU of 0."""
    a = matrices(seeds, images, 4, 0)
    wrong = np.roll(np.eye(4, dtype=int), 1, axis=0) * (1 + a.sum(axis=(2, 3), keepdims=True))
    found = bootstrap(a, blocks=blocks, samples=50, level=0.8, seed=7)
    column = by_loop(wrong, a, blocks, 50, seed=7)[:, 0]
    np.testing.assert_allclose([found.low, found.high], np.quantile(column, [0.1, 0.9]), atol=1e-12)
    assert found.value == pytest.approx(np.mean([scores(a[s].sum(0)).mean_iou for s in range(seeds)]))
    with pytest.raises(ValueError, match="confusion matrices are"):
        bootstrap(a[0])


def simulated(random: np.random.Generator, seeds: int, images: int, run: int) -> tuple[np.ndarray, np.ndarray]:
    """Two classes of 1000 pixels an image; the share that is right hangs on the method, the seed and the scene.

    Scenes last `run` images. The second method gets 0.1 more right than the first, at some scenes more, at some less.
    """
    both = []
    scene = np.repeat(random.normal(0, 0.1, (2, images // run)), run, axis=1)
    for method, mean in enumerate((0.6, 0.7)):
        right = mean + scene[method] + random.normal(0, 0.03, (seeds, 1))
        hits = np.rint(1000 * right.clip(0, 1)).astype(int)
        misses = 1000 - hits
        both.append(np.stack([np.stack([hits, misses], -1), np.stack([misses, hits], -1)], -2))
    return both[0], both[1]


def coverage(blocks: int | None) -> float:
    """In how many of 200 simulated studies the interval holds the true difference."""
    random = np.random.default_rng(0)
    truth = 0.7 / 1.3 - 0.6 / 1.4  # IoU is hits / (2000 - hits) of each class, here at the mean hits
    inside = 0
    for _ in range(200):
        found = paired_bootstrap(*simulated(random, 4, 200, run=5), blocks=blocks, samples=300).mean_iou
        inside += found.low <= truth <= found.high
    return inside / 200


def test_intervals_hold_the_truth_as_often_as_they_say():
    """And with images drawn one by one, as if no scene lasted, they do so less often."""
    assert 0.88 <= coverage(blocks=20) <= 0.99
    assert coverage(blocks=None) < 0.85


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_method_equals_itself():
    a = matrices(3, 10, 4, 0)
    result = paired_bootstrap(a, a)
    for interval in (result.mean_iou, *result.iou):
        assert (interval.value, interval.low, interval.high) == (0, 0, 0)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_class_that_occurs_nowhere_has_no_difference():
    a, b = matrices(2, 6, 4, 0), matrices(2, 6, 4, 1)
    for method in (a, b):
        method[:, :, 3] = method[:, :, :, 3] = 0
    result = paired_bootstrap(a, b, samples=20)
    assert math.isnan(result.iou[3].value)
    assert math.isnan(result.iou[3].low)
    without = paired_bootstrap(a[..., :3, :3], b[..., :3, :3], samples=20)
    assert result.mean_iou == without.mean_iou


def test_one_seed_and_one_image_leave_nothing_to_draw():
    a, b = matrices(1, 1, 3, 0), matrices(1, 1, 3, 1)
    found = paired_bootstrap(a, b, samples=10).mean_iou
    assert found.low == found.high == found.value != 0


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        (((2, 5, 3, 3), (3, 5, 3, 3)), {}, "same images and seeds"),
        (((2, 5, 3, 3), (2, 4, 3, 3)), {}, "same images and seeds"),
        (((5, 3, 3), (5, 3, 3)), {}, r"\(seeds, images, C, C\)"),
        (((2, 5, 3, 2), (2, 5, 3, 2)), {}, r"\(seeds, images, C, C\)"),
        (((0, 5, 3, 3), (0, 5, 3, 3)), {}, r"\(seeds, images, C, C\)"),
        (((2, 5, 3, 3), (2, 5, 3, 3)), {"blocks": 0}, "blocks=0"),
        (((2, 5, 3, 3), (2, 5, 3, 3)), {"samples": 0}, "samples=0"),
        (((2, 5, 3, 3), (2, 5, 3, 3)), {"level": 95}, "level=95"),
    ],
)
def test_what_cannot_be_compared_is_refused(shapes, options, message):
    with pytest.raises(ValueError, match=message):
        paired_bootstrap(*(np.ones(shape, int) for shape in shapes), **options)


def test_negative_counts_are_refused():
    with pytest.raises(ValueError, match="counts; got -1"):
        paired_bootstrap(np.ones((1, 2, 3, 3)), -np.ones((1, 2, 3, 3)))


def test_matrices_return_from_their_file(tmp_path):
    a = matrices(1, 4, 3, 0)[0]
    save_matrices(["ä", "b", "c", "d"], a, tmp_path / "new" / "confusions.npz")
    names, found = load_matrices(tmp_path / "new" / "confusions.npz")
    assert names == ("ä", "b", "c", "d")
    np.testing.assert_array_equal(found, a)


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "text.npz").write_text("text")
    (tmp_path / "empty.npz").touch()
    np.savez(tmp_path / "other.npz", x=np.ones(3))
    np.savez(tmp_path / "shapes.npz", names=np.array(["a"]), matrices=np.ones((2, 3, 3)))
    with (tmp_path / "array.npz").open("wb") as file:
        np.save(file, np.ones(3))
    save_matrices(["a"], np.ones((1, 2, 2)), tmp_path / "whole.npz")
    half = (tmp_path / "whole.npz").read_bytes()[:100]
    (tmp_path / "half.npz").write_bytes(half)
    with zipfile.ZipFile(tmp_path / "zip.npz", "w") as file:
        file.writestr("names.npy", "x")
    for name in ("text", "empty", "other", "shapes", "array", "half", "zip", "missing"):
        with pytest.raises(InputError, match=f"{name}.npz: expected the confusions.npz"):
            load_matrices(tmp_path / f"{name}.npz")
