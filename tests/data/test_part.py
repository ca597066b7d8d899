"""Parts of a dataset: runs of neighbours, of the length asked for, with everything the dataset tells of itself."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcnseg.data import CityScenes, Part, Remapped
from fcnseg.data.caching import read_mask
from fcnseg.errors import InputError

SCENES = CityScenes(8, size=(12, 16))


@given(st.integers(1, 400), st.floats(0.01, 1), st.floats(0, 0.99))
def test_a_part_is_a_run_of_neighbours(length: int, share: float, start: float) -> None:
    part = Part(CityScenes(length), share, start)
    assert len(part) == len(set(part.indices)) == max(1, round(share * length))
    assert all((b - a) % length in (1, 0) for a, b in zip(part.indices, part.indices[1:], strict=False))
    assert abs(part.indices[0] - start * length) <= 0.5 or part.indices[0] == 0


def test_quarters_hold_every_sample_once() -> None:
    quarters = [Part(SCENES, 0.25, start).indices for start in (0, 0.25, 0.5, 0.75)]
    assert quarters == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert Part(SCENES, 0.5, 0.75).indices == [6, 7, 0, 1]


def test_samples_and_masks_are_those_of_the_dataset() -> None:
    part = Part(Remapped(SCENES, "street11"), 0.25, 0.5)
    image, mask, name = part[1]
    assert name == SCENES[5][2] == "synthetic-0-000005"
    assert np.array_equal(image, SCENES[5][0])
    assert np.array_equal(mask, read_mask(part, 1))
    assert str(part.mapping) == str(Remapped(SCENES, "street11").mapping)


@pytest.mark.parametrize("share", [0, -1, 1.5, "half", True])
def test_a_share_out_of_range_is_refused(share: object) -> None:
    with pytest.raises(InputError, match=f"share={share}: expected a part of a dataset, above 0 and at most 1"):
        Part(SCENES, share)


@pytest.mark.parametrize("start", [-0.1, 1, "end"])
def test_a_start_out_of_range_is_refused(start: object) -> None:
    with pytest.raises(InputError, match=f"start={start}: expected where the part begins, from 0 to below 1"):
        Part(SCENES, 0.5, start)
