"""The report on a dataset: every kind of mistake found in it, how bad it is, and in which files."""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import fcnseg
from fcnseg.atomic import replacing
from fcnseg.data.inspection.samples import Facts, InspectedSplit, Problem, examine_all
from fcnseg.errors import InputError
from fcnseg.labels import LabelSpace

SEVERITIES = ("error", "warning", "note")
"""With an error training fails; a warning may spoil what it learns; a note is good to know."""

KINDS: dict[str, tuple[str, str]] = {
    "no pairs": ("error", "a split needs an image with a label of the same name, endings aside"),
    "masks of 0 and 255": ("error", "'values={0: background, 255: cell}' makes classes of them"),
    "unreadable image": ("error", "copy the file again, or leave the pair out"),
    "unreadable label": ("error", "copy the file again, or leave the pair out"),
    "too many bytes": ("error", "the environment variable FCNSEG_MAX_BYTES allows larger images"),
    "wrong number of channels": ("error", "channels=N reads images of N channels"),
    "image without label": ("error", "add the label, move the image away, or tell by label_names=*_mask how they pair"),
    "ambiguous name": ("error", "rename one of the two files"),
    "label of another size": ("error", "a label has a value for each pixel of its image"),
    "value outside the label space": ("error", "name all classes, or ignore values with ignored=[...]"),
    "colour of no class": ("error", "colours=FILE lists the colours of the classes"),
    "label in colours": ("error", "labels_as=colour reads colours, label_channel=0 the first channel"),
    "smoothed label": ("warning", "so many values come from smoothing or from lossy compression; save labels as PNG"),
    "label compressed with loss": ("warning", "save labels as PNG, which keeps values as they are"),
    "label of 0 and 255 alone": ("warning", "a binary mask? 'values={0: background, 255: cell}' makes classes of them"),
    "empty label": ("warning", "nothing can be learned from ignored pixels"),
    "constant image": ("warning", "a picture without content, perhaps of a failed camera or copy"),
    "duplicate across splits": ("warning", "validation on training images is too good to be true"),
    "duplicate within a split": ("warning", "copies weigh more than other images, and their labels may differ"),
    "near duplicate across splits": ("warning", "nearly the same picture; keep neighbours of a video in one split"),
    "near duplicate within a split": ("note", "nearly the same picture"),
    "class missing from train": ("warning", "a class without pixels cannot be learned"),
    "class missing from val": ("warning", "a class without pixels has no score"),
    "class nowhere": ("note", "neither split has pixels of it"),
    "class imbalance": ("note", "loss.class_weights=median_frequency weighs rare classes more"),
    "kinds of image differ": ("warning", "most images are of another kind; all are converted alike"),
    "changed file": ("warning", "fcnseg data create describes the files as they are now"),
    "too small image": ("warning", "networks see no context in it"),
    "label without image": ("warning", "training passes over it"),
    "folder named like an image": ("warning", "training passes over folders"),
    "unreadable folder": ("warning", "training passes over it"),
    "another name": ("warning", "training passes over it"),
    "sizes vary": ("note", "data.resize says how training brings them to data.size"),
    "not an image": ("note", "training passes over it"),
}
"""For every kind of finding, its severity and what to do; the most important first."""

RARE = 100
"""A class with so many times fewer pixels than the most frequent one is told as an imbalance."""


@dataclass(frozen=True)
class Finding:
    """All mistakes of one kind."""

    kind: str
    problems: tuple[Problem, ...]

    @property
    def severity(self) -> str:
        return KINDS[self.kind][0]

    @property
    def hint(self) -> str:
        return KINDS[self.kind][1]


@dataclass(frozen=True, eq=False)
class Inspection:
    """What an inspection found.

    Attributes:
        splits: the splits that it looked at.
        facts: of every pair, in order.
        findings: sorted by severity.
    """

    splits: tuple[InspectedSplit, ...]
    facts: tuple[Facts, ...]
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings with which training would fail."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def label_space(self) -> LabelSpace:
        return self.splits[0].dataset.label_space

    @cached_property
    def frequencies(self) -> dict[str, np.ndarray]:
        """By split, (num_classes, 2) pixels of each class, and images that show it."""
        return {split.name: class_frequencies(self._of(split.name), self.label_space) for split in self.splits}

    def _of(self, split: str) -> list[Facts]:
        return [facts for facts in self.facts if facts.split == split]

    def to_dict(self) -> dict[str, Any]:
        """Everything, fit for JSON."""
        return {
            "fcnseg": fcnseg.__version__,
            "label_space": self.label_space.to_dict(),
            "splits": {split.name: self._split(split.name) for split in self.splits},
            "findings": [
                {
                    "kind": finding.kind,
                    "severity": finding.severity,
                    "count": len(finding.problems),
                    "hint": finding.hint,
                    "files": [{"file": plain(p.file), "detail": plain(p.detail)} for p in finding.problems],
                }
                for finding in self.findings
            ],
        }

    def _split(self, split: str) -> dict[str, Any]:
        counts = self.frequencies[split].tolist()
        classes = zip(self.label_space.classes, counts, strict=True)
        return {
            "pairs": len(self._of(split)),
            "sizes": sizes(self._of(split)),
            "ignored_pixels": sum(facts.ignored for facts in self._of(split)),
            "classes": {name: {"pixels": pixels, "images": images} for name, (pixels, images) in classes},
        }


def inspect(
    splits: Sequence[InspectedSplit],
    *,
    smallest: int = 32,
    near: int | None = None,
    workers: int | None = None,
    checksums: bool = False,
    advance: Callable[[], Any] = lambda: None,
) -> Inspection:
    """Check every pair of a dataset.

    Args:
        splits: its splits; at least one, all of the same classes.
        smallest: images of fewer pixels in height or width are reported.
        near: also report images whose perceptual hashes differ in at most so many of 64 bits; None does not.
        workers: processes; by default one for each core.
        checksums: whether to hash the files.
        advance: called for every pair that is done.

    Raises:
        InputError: when a value is out of range, or a process was killed.
    """
    for name, value, least, most in (("smallest", smallest, 0, 65536), ("near", near or 0, 0, 64)):
        if not isinstance(value, int) or not least <= value <= most:
            raise InputError(f"{name}={value!r}: expected a whole number from {least} to {most}")
    facts = examine_all(splits, checksums=checksums, workers=workers, advance=advance)
    problems = [p for split in splits for p in split.problems] + [p for f in facts for p in f.problems]
    problems += [Problem("no pairs", split.name) for split in splits if not len(split.dataset)]
    problems += [*_small(facts, smallest), *_uneven_sizes(facts), *_uneven_forms(facts)]
    problems += [*_duplicates(facts), *(_near_duplicates(facts, near) if near is not None else ())]
    problems += [*_binary(facts), *_imbalance(facts, splits[0].dataset.label_space)]
    by_kind = defaultdict(list)
    for problem in problems:
        by_kind[problem.kind].append(problem)
    order = sorted(KINDS, key=lambda kind: SEVERITIES.index(KINDS[kind][0]))
    findings = tuple(Finding(kind, tuple(by_kind[kind])) for kind in order if kind in by_kind)
    return Inspection(tuple(splits), tuple(facts), findings)


def class_frequencies(facts: Sequence[Facts], label_space: LabelSpace) -> np.ndarray:
    """(num_classes, 2) pixels of each class, and images that show it."""
    counts = np.array([f.pixels for f in facts], np.int64).reshape(len(facts), label_space.num_classes)
    return np.stack([counts.sum(axis=0), (counts > 0).sum(axis=0)], axis=1)


def sizes(facts: Sequence[Facts]) -> dict[str, int]:
    """How many images there are of each size, as "WIDTHxHEIGHT", the most frequent first."""
    counts = Counter(f"{f.size[1]}x{f.size[0]}" for f in facts if f.size)
    return dict(counts.most_common())


def plain(text: str) -> str:
    """A text that can be written as UTF-8 and stands in one line, whatever file names hold."""
    encoded = os.fsencode(text).decode(errors="backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in encoded)


def write_report(inspection: Inspection, path: str | Path) -> None:
    """Write all findings with all their files as JSON."""
    with replacing(path) as temporary:
        text = json.dumps(inspection.to_dict(), indent=2, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")


HOW_TO_SEE = "fcnseg data inspect with the same images, labels and classes shows all"


def is_bad(facts: Facts) -> bool:
    """Whether training would fail at this pair."""
    return any(KINDS[problem.kind][0] == "error" for problem in facts.problems)


def require_sound(inspection: Inspection, skip_bad: bool) -> None:
    """Refuse a dataset with errors, unless they are to be left out.

    Raises:
        InputError: naming the first mistake and how many there are.
    """
    errors: Sequence[Finding] = inspection.errors
    if not errors or (skip_bad and not any(finding.kind in ("no pairs", "masks of 0 and 255") for finding in errors)):
        return
    first = errors[0].problems[0]
    count = sum(len(finding.problems) for finding in errors)
    more = f" ({count} mistakes)" if count > 1 else ""
    raise InputError(
        f"{plain(first.file)}: {errors[0].kind}{f' ({plain(first.detail)})' if first.detail else ''}{more}; "
        f"{errors[0].hint}; {HOW_TO_SEE}, skip_bad=true leaves them out"
    )


# What only all pairs together show


def _binary(facts: Sequence[Facts]) -> Iterator[Problem]:
    """Masks of which nothing but one class is left, since 255 does not count."""
    binary = [f for f in facts if any(p.kind == "label of 0 and 255 alone" for p in f.problems)]
    shown = sum((f.pixels for f in facts if len(f.pixels)), np.zeros(1, np.int64))
    if binary and len(shown) > 1 and (shown > 0).sum() <= 1:
        yield Problem("masks of 0 and 255", binary[0].label, f"as all {len(facts)} labels; 255 does not count")


def _small(facts: Sequence[Facts], smallest: int) -> Iterator[Problem]:
    for f in facts:
        if f.size and min(f.size) < smallest:
            yield Problem("too small image", f.image, f"{f.size[1]}x{f.size[0]}")


def _uneven_sizes(facts: Sequence[Facts]) -> Iterator[Problem]:
    counts = Counter(f.size for f in facts if f.size)
    usual = counts.most_common(1)[0][0] if counts else None
    for f in facts:
        if f.size and usual and f.size != usual:
            detail = f"{f.size[1]}x{f.size[0]}, most are {usual[1]}x{usual[0]}"
            yield Problem("sizes vary", f.image, detail)


def _uneven_forms(facts: Sequence[Facts]) -> Iterator[Problem]:
    counts = Counter(f.form for f in facts if f.form)
    usual = counts.most_common(1)[0][0] if counts else None
    for f in facts:
        if f.form and f.form != usual:
            yield Problem("kinds of image differ", f.image, f"{f.form}, most are {usual}")


def _duplicates(facts: Sequence[Facts]) -> Iterator[Problem]:
    """Images whose pixels are equal; constant ones are told as such."""
    first: dict[str, list[Facts]] = defaultdict(list)
    for f in facts:
        if f.perceptual_hash is None:
            continue
        for other in first[f.digest][:1]:
            labels = "the same label" if f.label_digest == other.label_digest else "another label"
            yield Problem(_place("duplicate", f, other), f.image, f"of {other.image}, with {labels}")
        first[f.digest].append(f)


def _near_duplicates(facts: Sequence[Facts], bits: int) -> Iterator[Problem]:
    """For every image the first one before it that hashes like it, those in other splits preferred."""
    known = [f for f in facts if f.perceptual_hash is not None]
    hashes = np.array([f.perceptual_hash for f in known], np.uint64)
    splits = np.array([f.split for f in known])
    for i, f in enumerate(known):
        distances = np.bitwise_count(hashes[:i] ^ hashes[i])
        alike = [int(j) for j in np.flatnonzero(distances <= bits) if known[j].digest != f.digest]
        if alike:
            j = min(alike, key=lambda j: (splits[j] == f.split, distances[j]))
            yield Problem(_place("near duplicate", f, known[j]), f.image, f"{distances[j]} bits from {known[j].image}")


def _place(what: str, one: Facts, other: Facts) -> str:
    return f"{what} within a split" if one.split == other.split else f"{what} across splits"


def _imbalance(facts: Sequence[Facts], label_space: LabelSpace) -> Iterator[Problem]:
    groups = {
        name: class_frequencies([f for f in facts if f.split.split("/")[0] == name], label_space)[:, 0]
        for name in ("train", "val")
    }
    total = groups["train"] + groups["val"]
    for index, name in enumerate(label_space.classes):
        if facts and not total[index]:
            yield Problem("class nowhere", name)
            continue
        for split, pixels in groups.items():
            if pixels.any() and not pixels[index]:
                yield Problem(f"class missing from {split}", name)
    for index, pixels in enumerate(groups["train"].tolist()):
        ratio = groups["train"].max() / pixels if pixels else 0
        if ratio >= RARE:
            detail = f"{ratio:.0f} times fewer pixels than {label_space.classes[groups['train'].argmax()]}"
            yield Problem("class imbalance", label_space.classes[index], detail)
