"""Endless streams of a domain's samples: fresh permutations of one set, or of several, each drawn by its weight."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

import numpy as np

Parts = Sequence[tuple[int, float]]
"""(number of samples, weight above 0) of each set of a domain, in the order in which they lie in it."""

Name = TypeVar("Name", str, int)

LONGEST = 10_000
"""Weights are whole numbers of at most this sum; beyond it they are rounded."""


@dataclass(frozen=True)
class SampleRef:
    """Which sample stands at a place of a batch.

    Attributes:
        domain: position of the domain among the named domains.
        index: the sample within its domain.
        count: how many samples its stream, that of the domain or of the pool, had given before: no two samples of
            a domain share it, so it seeds the augmentation.
    """

    domain: int
    index: int
    count: int


class Stream:
    """The samples of a domain in an order without end, of which every position is known without those before it.

    Of one part it is a fresh permutation in every turn. Several parts take turns by `fair_order`, and each is a stream
    of its own permutations: a part's samples are all shown before one of them is shown again, and a small part is drawn
    as often as its weight says, whatever its size.

    Args:
        parts: of the domain.
        seed: words that all chance depends on.
    """

    def __init__(self, parts: Parts, seed: Sequence[int]) -> None:
        self.lengths = [length for length, _ in parts]
        self.starts = np.cumsum([0, *self.lengths])[:-1].tolist()
        self.seed = tuple(seed)
        self._order = fair_order(whole_weights([weight for _, weight in parts]))
        drawn = self._order[:, None] == np.arange(len(parts))
        self._per_period = drawn.sum(0)
        self._before = (drawn.cumsum(0) - 1)[np.arange(len(drawn)), self._order]  # of the same part, in the period
        self._permutations: dict[int, tuple[int, np.ndarray]] = {}  # the current turn of each part

    def part(self, position: int) -> int:
        """Which part gives the sample at a position."""
        return int(self._order[position % len(self._order)])

    def sample(self, position: int) -> int:
        """The index, within the domain, of the sample at a position."""
        period, place = divmod(position, len(self._order))
        part = int(self._order[place])
        turn, at = divmod(period * int(self._per_period[part]) + int(self._before[place]), self.lengths[part])
        return self.starts[part] + int(self.permutation(part, turn)[at])

    def permutation(self, part: int, turn: int) -> np.ndarray:
        """The order of a part's samples in one of its turns."""
        if part not in self._permutations or self._permutations[part][0] != turn:
            # numpy takes a word 0 at the end for none.
            words = [*self.seed, turn, *([part + 1] if len(self.lengths) > 1 else [])]
            self._permutations[part] = turn, np.random.default_rng(words).permutation(self.lengths[part])
        return self._permutations[part][1]


def fair_order(weights: Sequence[int]) -> np.ndarray:
    """(sum of the weights,) which part comes at each place, as evenly as whole numbers allow, to be repeated.

    Of k parts, each has come after any number of places as often as its share of them, to at most 1 - 1 / (2k - 2); of
    two parts any run of places holds its share to less than one (Tijdeman, "The chairman assignment problem", Discrete
    Mathematics 32, 1980).

    Args:
        weights: whole numbers from 1 on.
    """
    total, slack = sum(weights), 2 * len(weights) - 2
    counts = [0] * len(weights)
    order = np.zeros(total, np.int64)
    for place in range(total if slack else 0):
        owed = [(place + 1) * weight - total * count for weight, count in zip(weights, counts, strict=True)]
        eligible = [part for part, due in enumerate(owed) if slack * due >= total]
        chosen = min(eligible, key=lambda part: Fraction(total * (slack - 1) - slack * owed[part], weights[part]))
        counts[chosen] += 1
        order[place] = chosen
    return order


def whole_weights(weights: Sequence[float]) -> list[int]:
    """The smallest whole numbers in the ratio of some weights above 0; rounded where their sum would pass `LONGEST`."""
    exact = [Fraction(str(weight)) for weight in weights]
    whole = [int(weight * math.lcm(*(other.denominator for other in exact))) for weight in exact]
    whole = [weight // math.gcd(*whole) for weight in whole]
    if sum(whole) <= LONGEST:
        return whole
    return [max(1, count) for count in apportion(dict(enumerate(whole)), LONGEST).values()]


def apportion(ratio: Mapping[Name, float], total: int) -> dict[Name, int]:
    """A whole number divided by positive shares, rounded by largest remainders; a small share may get nothing."""
    exact = {name: total * share / sum(ratio.values()) for name, share in ratio.items()}
    counts = {name: int(value) for name, value in exact.items()}
    by_remainder = sorted(ratio, key=lambda name: counts[name] - exact[name])
    for name in by_remainder[: total - sum(counts.values())]:
        counts[name] += 1
    return counts
