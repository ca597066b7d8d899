"""Noise and tree stencils for the procedural street scenes, made once per process and always the same."""

import math
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

_TILE = 512
_STENCIL = 160


@dataclass(frozen=True)
class Stencil:
    """A shape to stamp: (S, S, 3) uint8 of opacity, shade and class (above 127: inside), at halved sizes.

    Attributes:
        levels: the stencil from its finest level to its coarsest.
    """

    levels: tuple[np.ndarray, ...]

    def level(self, size: float) -> np.ndarray:
        """The coarsest level that is at least `size` pixels wide, or the finest."""
        fitting = [level for level in self.levels if level.shape[0] >= size]
        return fitting[-1] if fitting else self.levels[0]


def _stencil(opacity: np.ndarray, shade: np.ndarray, inside: np.ndarray) -> Stencil:
    planes = [np.clip(p * 255, 0, 255).astype(np.uint8) for p in (opacity, shade, inside)]
    x, y, width, height = cv2.boundingRect(planes[2])
    cut = cv2.merge(planes)[y : y + height, x : x + width]
    levels = [cv2.resize(cut, (_STENCIL, _STENCIL), interpolation=cv2.INTER_LINEAR)]
    while levels[-1].shape[0] > 12:
        levels.append(cv2.resize(levels[-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
    return Stencil(tuple(levels))


def _noise(rng: np.random.Generator, size: int, roughness: float) -> np.ndarray:
    """(size, size) float32 noise that tiles, within -1 to 1; amplitude falls as frequency^-roughness."""
    y, x = np.fft.fftfreq(size)[:, None] * size, np.fft.rfftfreq(size)[None] * size
    radius = np.hypot(y, x)
    radius[0, 0] = np.inf
    phase = np.exp(2j * np.pi * rng.random(radius.shape))
    field = np.fft.irfft2(radius**-roughness * phase, s=(size, size))
    return np.clip(field / field.std() / 2.5, -1, 1).astype(np.float32)


@cache
def grain_tile() -> np.ndarray:
    """(512, 512) float32 surface texture that tiles, within -1 to 1."""
    return _noise(np.random.default_rng(1), _TILE, 0.6)


@cache
def cloud_tile() -> np.ndarray:
    """(512, 512) float32 clouds that tile, within -1 to 1."""
    return _noise(np.random.default_rng(2), _TILE, 1.7)


@cache
def sensor_tile() -> np.ndarray:
    """(512, 512, 3) int8-range float32 Gaussian noise of standard deviation 1: shared and per-channel."""
    rng = np.random.default_rng(3)
    shared, own = rng.standard_normal((_TILE, _TILE, 1)), rng.standard_normal((_TILE, _TILE, 3))
    smooth = cv2.GaussianBlur(own, (3, 3), 0.8) * 1.8  # colour noise is blotchy after demosaicing
    return (0.8 * shared + 0.6 * smooth).astype(np.float32)


@cache
def leafy_crowns() -> tuple[Stencil, ...]:
    """Crowns in leaf: clumps of leaves with ragged edges and a few holes."""
    return tuple(_leafy(np.random.default_rng([4, i])) for i in range(12))


def _leafy(rng: np.random.Generator) -> Stencil:
    y, x = np.mgrid[-1 : 1 : _STENCIL * 1j, -1 : 1 : _STENCIL * 1j]
    field = np.full(x.shape, -1.0)
    shade = np.zeros(x.shape)
    for _ in range(13):
        angle, far = rng.uniform(0, 2 * np.pi), 0.62 * math.sqrt(rng.random())
        radius = rng.uniform(0.22, 0.42)
        dx, dy = x - far * math.cos(angle), y - far * math.sin(angle)
        clump = 1 - np.hypot(dx, dy) / radius
        nearer = clump > field
        shade[nearer] = (0.5 - 0.35 * dy / radius)[nearer]  # each clump is lit from above
        field = np.maximum(field, clump)
    coarse, fine = (_noise(rng, _STENCIL, r) for r in (1.1, 0.35))
    inside = field + 0.45 * coarse + 0.35 * fine > -0.02
    inside[[0, -1]] = inside[:, [0, -1]] = False
    shade = 0.62 * shade + 0.08 - 0.16 * y + 0.2 * coarse + 0.3 * fine + 0.12
    opacity = cv2.GaussianBlur(inside.astype(np.float32), (3, 3), 0.7)
    return _stencil(opacity, shade, inside)


@cache
def bare_trees() -> tuple[Stencil, ...]:
    """Whole trees in winter; the class covers the veil of twigs, as people label it."""
    return tuple(_bare(np.random.default_rng([5, i])) for i in range(8))


def _bare(rng: np.random.Generator) -> Stencil:
    scale = 4  # drawn large, then averaged: a twig thinner than a pixel becomes a faint one
    size = _STENCIL * scale
    wood = np.zeros((size, size), np.uint8)
    tips: list[tuple[float, float]] = []

    def grow(x: float, y: float, angle: float, length: float, width: float) -> None:
        x1, y1 = x + length * math.sin(angle), y - length * math.cos(angle)
        start, end = (np.array([[x, y], [x1, y1]]) * size).astype(int).tolist()
        cv2.line(wood, start, end, 255, max(1, round(width * size)), cv2.LINE_8)
        if length < 0.03:
            tips.append((x1, y1))
            return
        for side in (-1, 0.1, 1) if rng.random() < 0.75 else (-1, 1):
            turn = side * rng.uniform(0.2, 0.6)
            grow(x1, y1, 0.85 * angle + turn, length * rng.uniform(0.6, 0.82), width * 0.62)

    grow(0.5, 1.0, rng.uniform(-0.06, 0.06), rng.uniform(0.17, 0.21), 0.03)
    opacity = cv2.resize(wood, (_STENCIL, _STENCIL), interpolation=cv2.INTER_AREA) / 255
    twigs = np.zeros((_STENCIL, _STENCIL), np.uint8)
    for x, y in tips:
        cv2.circle(twigs, (int(x * _STENCIL), int(y * _STENCIL)), 6, 255, -1)
    ragged = 40 * _noise(rng, _STENCIL, 0.9) + 50 * _noise(rng, _STENCIL, 0.3)
    inside = (cv2.GaussianBlur(twigs, (0, 0), 4) + ragged > 75) | (opacity > 0.45)
    veil = 0.28 + 0.3 * _noise(rng, _STENCIL, 0.3)
    opacity = np.where(inside, np.maximum(1.3 * opacity, veil), opacity)
    shade = 0.4 + 0.3 * _noise(rng, _STENCIL, 0.5)
    return _stencil(opacity, shade, inside)
