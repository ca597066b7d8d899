"""The camera, the canvas and the dice with which the procedural street scenes are drawn."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np

from fcnseg.data.citygen.textures import Stencil

Colour = tuple[float, float, float]
"""Red, green, blue; 0 to 255, may exceed it before it is painted."""

Point = tuple[float, float, float]
"""Metres: x to the right, y up from the road, z ahead of the camera."""

Outline = Sequence[tuple[float, float]]
"""Corners of a flat polygon: metres to the right, metres up."""

_SHIFT = 4  # OpenCV's fixed-point bits: shapes land on 1/16 pixel, so sizes agree on a scene
_UNIT = 1 << _SHIFT
_T = TypeVar("_T")

CIRCLE = tuple((math.cos(a * math.pi / 6), math.sin(a * math.pi / 6)) for a in range(12))
"""Unit circle as a polygon."""


def lit(colour: Colour, light: float) -> Colour:
    """The colour under `light` (1: full)."""
    return colour[0] * light, colour[1] * light, colour[2] * light


class Dice:
    """Scalar random draws from one generator, pooled because single numpy draws are slow."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._pool: list[float] = []

    def __call__(self, low: float = 0.0, high: float = 1.0) -> float:
        """A uniform draw from [low, high)."""
        try:
            return low + (high - low) * self._pool.pop()
        except IndexError:
            self._pool = self._rng.random(1024).tolist()
            return low + (high - low) * self._pool.pop()

    def chance(self, probability: float) -> bool:
        return self() < probability

    def integer(self, low: int, high: int) -> int:
        """An integer from low to high, both included."""
        return low + int(self() * (high - low + 1))

    def pick(self, choices: Sequence[_T]) -> _T:
        return choices[int(self() * len(choices))]

    def count(self, mean: float) -> int:
        """An integer near `mean`: from none to about twice as many."""
        return int(self(0, 2 * mean) + 0.5)

    def array(self, *shape: int) -> np.ndarray:
        """Uniform draws from [0, 1) in an array of this shape."""
        return self._rng.random(shape)


@dataclass(frozen=True)
class Camera:
    """A dashboard camera that looks along a street.

    Yaw and bends are a shear of the world, x + drift z + bend z^2: exact enough at the small angles
    of a car in its lane, and straight vertical edges stay vertical.

    Attributes:
        height, width: the picture's size in pixels.
        focal: focal length in picture widths.
        horizon: the horizon's height in the picture, from 0 (top) to 1 (bottom).
        eye: the camera's height above the road in metres.
        drift: metres that the street's axis moves to the right per metre ahead.
        bend: the street's bend in 1/metre.
        mirror: 1, or -1 for a scene seen in a mirror (traffic keeps to the other side).
    """

    height: int
    width: int
    focal: float
    horizon: float
    eye: float
    drift: float = 0.0
    bend: float = 0.0
    mirror: int = 1

    @property
    def focal_px(self) -> float:
        return self.focal * self.width

    @property
    def centre_px(self) -> float:
        """The column that looks straight ahead; pixel centres lie on integers."""
        return self.width / 2 - 0.5

    @property
    def horizon_px(self) -> float:
        return self.horizon * self.height - 0.5

    def offset(self, z: float) -> float:
        """How far the street's axis lies to the right of the camera's at depth z, in metres."""
        return (self.drift + self.bend * z) * z

    def project(self, points: np.ndarray) -> np.ndarray:
        """Metric points (..., 3) as pixel coordinates (..., 2), column and row."""
        x, y, z = points[..., 0], points[..., 1], points[..., 2]
        scale = self.focal_px / z
        pixels = np.empty((*points.shape[:-1], 2))
        pixels[..., 0] = self.centre_px + self.mirror * (x + (self.drift + self.bend * z) * z) * scale
        pixels[..., 1] = self.horizon_px - (y - self.eye) * scale
        return pixels

    def sees(self, x: float, near: float, far: float, reach: float = 0.0) -> bool:
        """Whether something within `reach` metres of x, from depth near to far, can be in the picture."""
        limit = 0.52 / self.focal
        at_near, at_far = (x + self.offset(near)) / near, (x + self.offset(far)) / far
        return min(at_near, at_far) < limit + reach / near and max(at_near, at_far) > -limit - reach / near


class Canvas:
    """A picture and its mask, painted together from far to near.

    Colours and class share one (H, W, 4) array, so an edge in the mask is the same edge in the picture.

    Attributes:
        pixels: (H, W, 4) uint8: red, green, blue, class index.
        haze: the colour that things fade to with distance, and the distance in metres of a fade to 1/e.
    """

    def __init__(self, camera: Camera, haze: tuple[Colour, float]) -> None:
        self.camera = camera
        self.haze = haze
        self.pixels = np.zeros((camera.height, camera.width, 4), np.uint8)
        self._scale = camera.focal_px * _UNIT
        self._centre = camera.centre_px * _UNIT
        self._horizon = camera.horizon_px * _UNIT

    def ink(self, colour: Colour, z: float, label: int) -> tuple[float, float, float, int]:
        """The colour as seen through z metres of haze, with the class that it paints."""
        (hr, hg, hb), distance = self.haze
        keep = math.exp(-z / distance)
        fog = 1 - keep
        red, green, blue = colour  # OpenCV saturates: no need to clip here
        return red * keep + hr * fog, green * keep + hg * fog, blue * keep + hb * fog, label

    def _corners(self, points: Sequence[Point]) -> np.ndarray:
        """(N, 2) int32 fixed-point pixels; plain floats are faster than arrays for a few points."""
        camera, centre, horizon = self.camera, self._centre, self._horizon
        mirror, drift, bend, eye = camera.mirror, camera.drift, camera.bend, camera.eye
        focal = self._scale
        corners: list[int] = []
        for x, y, z in points:
            scale = focal / z
            corners += int(centre + mirror * (x + (drift + bend * z) * z) * scale), int(horizon - (y - eye) * scale)
        return np.array(corners, np.int32).reshape(-1, 2)

    def _foot(self, x: float, z: float) -> tuple[int, int]:
        """Fixed-point column and row of the point (x, z) on the ground."""
        camera, scale = self.camera, self._scale / z
        u = self._centre + camera.mirror * (x + (camera.drift + camera.bend * z) * z) * scale
        return int(u), int(self._horizon - (0.0 - camera.eye) * scale)

    def face(self, points: Sequence[Point], colour: Colour, label: int) -> None:
        """Fill the polygon between points in space."""
        ink = self.ink(colour, 0.5 * (points[0][2] + points[len(points) // 2][2]), label)
        cv2.fillPoly(self.pixels, [self._corners(points)], ink, cv2.LINE_8, _SHIFT)

    def faces(self, corners: np.ndarray, colour: Colour, label: int) -> None:
        """Fill many polygons (N, corners, 3) of one colour, which must not overlap; haze by their middle."""
        if len(corners) == 0:
            return
        pixels = (self.camera.project(corners) * _UNIT).astype(np.int32)
        ink = self.ink(colour, 0.5 * float(corners[0, 0, 2] + corners[-1, 0, 2]), label)
        cv2.fillPoly(self.pixels, list(pixels), ink, cv2.LINE_8, _SHIFT)

    def plate(self, at: tuple[float, float], outline: Outline, colour: Colour, label: int) -> None:
        """Fill a flat polygon that faces the camera at `at` = (x, z): (dx, y) corners in metres."""
        x, z = at
        scale = self._scale / z
        u, v = self._foot(x, z)
        across = self.camera.mirror * scale
        corners: list[int] = []
        for dx, y in outline:
            corners += int(u + across * dx), int(v - scale * y)
        polygon = np.array(corners, np.int32).reshape(-1, 2)
        cv2.fillPoly(self.pixels, [polygon], self.ink(colour, z, label), cv2.LINE_8, _SHIFT)

    def glaze(self, points: Sequence[Point], colour: Colour, opacity: float, label: int) -> None:
        """Blend a colour over a convex polygon and give it a class: what is behind shines through."""
        corners = self._corners(points)
        left, top = np.maximum(corners.min(axis=0) // _UNIT, 0)
        right, bottom = np.minimum(corners.max(axis=0) // _UNIT + 2, [self.camera.width, self.camera.height])
        if right <= left or bottom <= top:
            return
        inside = np.zeros((bottom - top, right - left), np.uint8)
        cv2.fillConvexPoly(inside, corners - np.array([left * _UNIT, top * _UNIT], np.int32), 1, cv2.LINE_8, _SHIFT)
        ink = self.ink(colour, sum(p[2] for p in points) / len(points), label)
        view = self.pixels[top:bottom, left:right]
        tint = np.full_like(view, np.clip(ink, 0, 255).astype(np.uint8))
        mixed = cv2.addWeighted(view, 1 - opacity, tint, opacity, 0)
        mixed[..., 3] = label
        cv2.copyTo(mixed, inside, view)

    def stamp(
        self, stencil: Stencil, at: tuple[float, float], box: tuple[float, float, float, float],
        ramp: np.ndarray, label: int,
    ) -> None:  # fmt: skip
        """Blend a stencil that faces the camera at `at` = (x, z).

        Args:
            stencil: opacity, shade and class in levels of detail.
            at: where it stands, in metres.
            box: left, right (relative to x), bottom, top in metres.
            ramp: (256, 1, 3) uint8 colours from the darkest shade to the lightest.
            label: the class that it paints.
        """
        x, z = at
        scale = self.camera.focal_px / z
        u, v = (fixed / _UNIT for fixed in self._foot(x, z))
        left, right = sorted(u + self.camera.mirror * scale * dx for dx in box[:2])
        top, bottom = v - scale * box[3], v - scale * box[2]
        x0, x1 = max(round(left), 0), min(round(right) + 1, self.camera.width)
        y0, y1 = max(round(top), 0), min(round(bottom) + 1, self.camera.height)
        if x1 <= x0 or y1 <= y0:
            return
        level = stencil.level(max(right - left, bottom - top))
        sx, sy = level.shape[1] / (right - left), level.shape[0] / (bottom - top)
        warp = np.array([[sx, 0, (x0 - left) * sx - 0.5], [0, sy, (y0 - top) * sy - 0.5]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        cut = cv2.warpAffine(level, warp, (x1 - x0, y1 - y0), flags=flags)
        view = self.pixels[y0:y1, x0:x1]
        alpha = cut[..., 0].astype(np.float32) * np.float32(1 / 255)
        paint = cv2.LUT(cv2.merge([cut[..., 1]] * 3), ramp)
        behind = cv2.cvtColor(view, cv2.COLOR_RGBA2RGB)
        mixed = cv2.blendLinear(paint, behind, alpha, 1 - alpha)
        inside = np.where(cut[..., 2] > 127, np.uint8(label), view[..., 3])
        view[:] = cv2.merge([mixed, inside])
