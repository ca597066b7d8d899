"""Which images are shown, and within what size."""

import numpy as np
import pytest

from fcnseg.reports.gallery import Picture, choose, within


@pytest.mark.parametrize("most", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 24])
@pytest.mark.parametrize("count", [0, 1, 2, 5, 10, 25, 101, 1000])
def test_the_worst_the_best_and_some_between(count, most):
    chosen = choose(count, most)
    assert len(chosen) == min(count, most)
    assert chosen == sorted(set(chosen))
    assert all(0 <= place < count for place in chosen)
    if most >= 2 and count:
        assert (chosen[0], chosen[-1]) == (0, count - 1)
    if count > most >= 3:
        third = (most + 1) // 3
        assert chosen[:third] == list(range(third))
        assert chosen[-third:] == list(range(count - third, count))
        gaps = np.diff(chosen[third:-third])
        assert not gaps.size or gaps.max() - gaps.min() <= 1, "evenly"


def test_the_median_is_among_them():
    assert 50 in choose(101, 3)


def test_pictures_are_left_out_until_the_page_is_small_enough():
    pictures = [Picture(str(i), i / 10, i + 1, (), {"image": bytes(100)}) for i in range(10)]
    assert [p.rank for p in within(pictures, 24, 1000)] == list(range(1, 11))
    assert [p.rank for p in within(pictures, 2, 1000)] == [1, 10]
    few = within(pictures, 24, 399)
    assert [p.rank for p in few][::2] == [1, 10]
    assert len(few) == 3
    assert within(pictures, 24, 99) == []
    assert within(pictures, 0, 1000) == []
