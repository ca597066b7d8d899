"""Patterns by which labels belong to images: what a star stands for, and which patterns names suggest."""

import pytest

from fcnseg.data.files.naming import check_patterns, common_part, suggestion
from tests.data.refusals import complaint


@pytest.mark.parametrize(
    ("name", "pattern", "other", "expected"),
    [
        ("x", "*", None, "x"),
        ("x_mask", "*_mask", None, "x"),
        ("deep/x_mask", "*_mask", None, "deep/x"),
        ("mask-x", "mask-*", None, "x"),
        ("x", "*_mask", None, None),
        ("_mask", "*_mask", None, None),
        ("x_mask", "*", "*_mask", None),  # of one folder the longer pattern takes it
        ("x_mask", "*_mask", "*", "x"),
        ("_mask", "*", "*_mask", "_mask"),
    ],
)
def test_the_star_stands_for_what_a_pair_shares(name: str, pattern: str, other: str | None, expected: str) -> None:
    assert common_part(name, pattern, other) == expected


def test_names_suggest_their_pattern() -> None:
    numbers = [str(i) for i in range(12)]  # 1 is also how 10 and 11 begin
    masks = [f"{i}_mask" for i in numbers]
    assert suggestion(numbers, masks) == "'label_names=*_mask' pairs 12 of them"
    assert suggestion([*numbers, *masks], [*masks, *numbers]) == "'label_names=*_mask' pairs 12 of them"
    assert suggestion(numbers, [f"seg_{i}" for i in numbers]) == "'label_names=seg_*' pairs 12 of them"
    assert suggestion([f"a/{i}_rgb" for i in numbers], [f"a/{i}_gt" for i in numbers]) == (
        "'label_names=*_gt' 'image_names=*_rgb' pairs 12 of them"
    )
    assert suggestion(masks, numbers) == "'image_names=*_mask' pairs 12 of them"


def test_names_without_a_pattern_suggest_none() -> None:
    assert suggestion(["cat", "dog", "cow"], ["1", "2", "3"]) == ""
    assert suggestion(["a", "b", "c"], ["a", "b", "c"]) == ""
    assert suggestion([], []) == ""
    assert suggestion(["x"], []) == ""


@pytest.mark.parametrize("pattern", ["_mask", "*_*", ""])
def test_a_pattern_has_one_star(pattern: str) -> None:
    assert complaint(lambda: check_patterns(("*", pattern))).startswith(f"label_names={pattern}: expected one star")
