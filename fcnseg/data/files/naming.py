"""Which label belongs to which image where their names differ by more than the ending: patterns such as `*_mask`."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile

from fcnseg.errors import InputError

Patterns = tuple[str, str]
"""What images and what labels are called, endings aside, with a star for what a pair has in common."""

SAMPLED = 50  # images whose names are looked at for a pattern
NEAR = 20  # names beside an image's in the alphabet that its label may have


def check_patterns(patterns: Patterns) -> None:
    """Refuse patterns without a star or with several.

    Raises:
        InputError: naming the setting.
    """
    for key, pattern in zip(("image_names", "label_names"), patterns, strict=True):
        if not isinstance(pattern, str) or pattern.count("*") != 1:
            raise InputError(f"{key}={pattern}: expected one star for what images and labels share, such as *_mask")


def common_part(name: str, pattern: str, other: str | None = None) -> str | None:
    """What a pattern's star stands for in a file's name; None where the file is called otherwise.

    Args:
        name: of a file, without its ending; folders before it are kept.
        pattern: with one star, for the name after the folders.
        other: the pattern of what lies in the same folder: a file that both fit belongs to the longer one.
    """
    if pattern == "*" and other is None:
        return name or None
    folder, slash, last = name.rpartition("/")
    start, _, end = pattern.partition("*")
    if not (len(last) > len(start) + len(end) and last.startswith(start) and last.endswith(end)):
        return None
    if other is not None and len(other) > len(pattern) and common_part(last, other) is not None:
        return None
    return f"{folder}{slash}{last[len(start) : len(last) - len(end)]}"


def suggestion(images: Iterable[str], labels: Iterable[str]) -> str:
    """The settings that would pair names which do not agree, in words; empty where no pattern shows.

    Args:
        images, labels: names without endings; the same ones where all lie in one folder.
    """
    pictures, others = (sorted({name.rpartition("/")[2] for name in names}) for names in (images, labels))
    counts = Counter(_candidates(pictures, others))
    if not counts:
        return ""
    first, second = counts.most_common(1)[0][0]
    one_folder = pictures == others
    mine, theirs = (second, first) if one_folder else (None, None)
    shared = {common_part(name, first, mine) for name in pictures} & {
        common_part(name, second, theirs) for name in others
    }
    found = len(shared - {None})
    as_they_are = 0 if one_folder else len({*pictures} & {*others})
    if found <= as_they_are or found * (3 if one_folder else 2) < min(len(pictures), len(others)):
        return ""
    settings = [f"'label_names={second}'"] if second != "*" else []
    settings += [f"'image_names={first}'"] if first != "*" else []
    return f"{' '.join(settings)} pairs {found} of them"


def _candidates(images: Sequence[str], labels: Sequence[str]) -> Iterator[Patterns]:
    """Patterns under which one image or another has a label."""
    backwards = sorted(name[::-1] for name in labels)
    for image in images[:: -(-len(images) // SAMPLED) or 1]:
        after = bisect_right(labels, image)
        longer = takewhile(lambda name: name.startswith(image), labels[after : after + NEAR])  # noqa: B023
        yield from (("*", f"*{name[len(image) :]}") for name in longer)
        turned = image[::-1]
        after = bisect_right(backwards, turned)
        longer = takewhile(lambda name: name.startswith(turned), backwards[after : after + NEAR])  # noqa: B023
        yield from (("*", f"{name[len(turned) :][::-1]}*") for name in longer)
        if images is not labels and images != labels:
            place = bisect_right(labels, image)
            near = labels[max(0, place - 1) : place + 1]
            for name in near:
                start = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(image, name, strict=False)))
                start = len(image[:start].rstrip("_-. "))
                if start:
                    yield f"*{image[start:]}", f"*{name[start:]}"
