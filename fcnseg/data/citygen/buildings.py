"""Buildings of the procedural streets: facades in perspective with windows, shops, roofs and chimneys."""

import math
from dataclasses import dataclass

import numpy as np

from fcnseg.data.citygen.canvas import Canvas, Colour, Dice, lit
from fcnseg.data.citygen.looks import Look
from fcnseg.labels import STREET11

BUILDING = STREET11.classes.index("building")

_WALLS = (
    (150, 82, 62), (172, 146, 108), (182, 172, 152), (218, 214, 204), (142, 142, 142), (98, 74, 64),
    (206, 190, 150), (160, 120, 90), (120, 110, 100), (170, 100, 80),
)  # fmt: skip
_ROOFS = ((75, 72, 75), (110, 70, 58), (90, 85, 80), (130, 85, 65))
_TRIM = ((225, 222, 215), (190, 182, 168), (70, 66, 62), (120, 115, 110))
_GLASS = ((38, 44, 52), (60, 68, 78), (25, 28, 32), (95, 108, 122))
_SHOPS = (
    (150, 35, 35), (30, 50, 95), (30, 75, 50), (40, 38, 38), (205, 160, 50), (215, 210, 200),
    (90, 40, 80),
)  # fmt: skip


@dataclass(frozen=True)
class House:
    """One building's dimensions (metres) and paints.

    Attributes:
        storey: height of a storey.
        storeys: their number.
        bay: distance between windows.
        opening: width and height of a window.
        roof: height of the pitched roof; 0 is flat.
        shop: whether the ground floor is a shop front.
        wall, trim, glass, glint, tiles, sign: paints.
    """

    storey: float
    storeys: int
    bay: float
    opening: tuple[float, float]
    roof: float
    shop: bool
    wall: Colour
    trim: Colour
    glass: Colour
    glint: Colour
    tiles: Colour
    sign: Colour

    @property
    def height(self) -> float:
        return self.storey * self.storeys + 0.6


def build(dice: Dice, look: Look, storeys: int, terrace: "House | None" = None) -> House:
    """Design a house; a terrace repeats its neighbour's dimensions in other paint."""
    if terrace is not None:
        storey, storeys, bay, opening, roof = (
            terrace.storey, terrace.storeys, terrace.bay, terrace.opening, terrace.roof,
        )  # fmt: skip
    else:
        storey, bay = dice(2.8, 3.6), dice(1.9, 3.4)
        opening = bay * dice(0.38, 0.72), dice(1.2, 1.9)
        roof = dice(2.0, 4.5) if dice.chance(0.6) else 0.0
    glass = look.tint(dice, _GLASS, 0.25)
    return House(
        storey, storeys, bay, opening, roof, dice.chance(0.45),
        wall=lit(look.tint(dice, _WALLS, 0.2), look.masonry), trim=look.tint(dice, _TRIM), glass=glass,
        glint=look.tint(dice, ((150, 165, 180), (110, 120, 130), (190, 190, 180), (70, 75, 80))),
        tiles=look.tint(dice, _ROOFS, 0.2), sign=look.tint(dice, _SHOPS, 0.2),
    )  # fmt: skip


@dataclass(frozen=True)
class _Wall:
    """A vertical wall on the ground line from `start` to `end`, each (x, z) in metres."""

    start: tuple[float, float]
    end: tuple[float, float]

    @property
    def length(self) -> float:
        return math.dist(self.start, self.end)

    def quads(self, t0: np.ndarray, t1: np.ndarray, y0: np.ndarray, y1: np.ndarray) -> np.ndarray:
        """Rectangles (N, 4, 3) on the wall between metres along it and heights, each (N,)."""
        (xa, za), (xb, zb), length = self.start, self.end, self.length
        points = np.empty((len(t0), 4, 3))
        for ends, t in ((slice(0, None, 3), t0), (slice(1, 3), t1)):
            points[:, ends, 0] = (xa + (xb - xa) / length * t)[:, None]
            points[:, ends, 2] = (za + (zb - za) / length * t)[:, None]
        points[:, :2, 1] = y0[:, None]
        points[:, 2:, 1] = y1[:, None]
        return points

    def band(self, y0: float, y1: float) -> list[tuple[float, float, float]]:
        """The four corners of the wall between two heights."""
        (xa, za), (xb, zb) = self.start, self.end
        return [(xa, y0, za), (xb, y0, zb), (xb, y1, zb), (xa, y1, za)]


def facade(
    canvas: Canvas, dice: Dice, house: House, start: tuple[float, float], end: tuple[float, float],
    light: float,
) -> None:  # fmt: skip
    """A wall with its windows from `start` to `end` = (x, z), under `light` (1: full)."""
    wall = _Wall(start, end)
    nearest = min(start[1], end[1])
    canvas.face(wall.band(0, house.height), lit(house.wall, light), BUILDING)
    if nearest < (160 if start[1] == end[1] else 55):  # windows along the street shrink to nothing sooner
        _openings(canvas, dice, house, wall, light, detailed=nearest < 25)
    if nearest < 40:
        _ground_floor(canvas, dice, house, wall, light)
        cornice = lit(house.trim, light)
        canvas.face(wall.band(house.height - 0.35, house.height), cornice, BUILDING)
        if dice.chance(0.4):
            canvas.face(wall.band(house.storey + 0.1, house.storey + 0.35), lit(cornice, 0.9), BUILDING)


def _openings(canvas: Canvas, dice: Dice, house: House, wall: _Wall, light: float, detailed: bool) -> None:
    """The windows above the ground floor: frames, then glass in two shades."""
    columns = max(int(wall.length / house.bay), 1)
    margin = (wall.length - columns * house.bay) / 2
    wide, tall = house.opening
    t = margin + house.bay * (np.arange(columns) + 0.5) - wide / 2
    y = house.storey * np.arange(1, house.storeys) + 0.8
    t0, y0 = np.tile(t, len(y)), np.repeat(y, len(t))
    if len(t0) == 0 or wall.length < wide:
        return
    bright = dice.array(len(t0)) < 0.3
    if detailed:
        frames = wall.quads(t0 - 0.12, t0 + wide + 0.12, y0 - 0.18, y0 + tall + 0.12)
        canvas.faces(frames, lit(house.trim, light * 0.9), BUILDING)
    panes = wall.quads(t0, t0 + wide, y0, y0 + tall)
    canvas.faces(panes, lit(house.glass, 0.6 + 0.4 * light), BUILDING)
    if detailed:
        glints = wall.quads(t0, t0 + wide, y0 + 0.45 * tall, y0 + tall)[bright]
        canvas.faces(glints, lit(house.glint, light), BUILDING)
        bars = wall.quads(t0, t0 + wide, y0 + 0.47 * tall, y0 + 0.54 * tall)
        canvas.faces(bars, lit(house.trim, light * 0.8), BUILDING)


def _ground_floor(canvas: Canvas, dice: Dice, house: House, wall: _Wall, light: float) -> None:
    """Shop windows under a coloured fascia, or doors between windows."""
    top = house.storey - 0.5
    if house.shop:
        canvas.face(wall.band(0, top), lit(house.sign, 0.75 * light), BUILDING)
        count = max(int(wall.length / 2.6), 1)
        step = wall.length / count
        t = np.arange(count) * step
        low, high = np.full(count, 0.5), np.full(count, top - 0.15)
        canvas.faces(wall.quads(t + 0.2, t + step - 0.2, low, high), lit(house.glass, 0.7), BUILDING)
        some = dice.array(count) < 0.4
        inside = wall.quads(t + 0.4, t + step - 0.5, low + 0.2, high - 0.5)[some]
        canvas.faces(inside, lit(house.glint, 0.6 * light), BUILDING)
        canvas.face(wall.band(top, top + 0.7), lit(house.sign, light), BUILDING)
        return
    count = max(int(wall.length / house.bay), 1)
    step = wall.length / count
    t = (np.arange(count) + 0.5) * step
    door = np.arange(count) % 3 == dice.integer(0, 2)
    half = np.minimum(np.where(door, 0.5, house.opening[0] / 2), 0.45 * step)
    low, high = np.where(door, 0.1, 0.9), np.full(count, 2.2)
    canvas.faces(wall.quads(t - half, t + half, low, high)[~door], lit(house.glass, 0.75), BUILDING)
    canvas.faces(wall.quads(t - half, t + half, low, high)[door], lit(house.sign, light), BUILDING)


def building(
    canvas: Canvas, dice: Dice, house: House, x: float, z: tuple[float, float], depth: float,
    light: tuple[float, float], corner: bool,
) -> None:  # fmt: skip
    """A building along the street.

    Args:
        canvas: where to paint.
        dice: draws the details.
        house: its design.
        x: its wall along the street; negative is the left side.
        z: where it begins and ends, metres ahead.
        depth: metres from the street to its back.
        light: on the wall along the street, and on the end wall that faces the camera.
        corner: whether that end wall stands free; a terrace hides it.
    """
    near, far = max(z[0], 1.2), z[1]
    away = 1.0 if x > 0 else -1.0
    back, top = x + away * depth, house.height
    if house.roof:
        ridge, crest = x + away * depth / 2, top + house.roof
        slope = [(x, top, near), (x, top, far), (ridge, crest, far), (ridge, crest, near)]
        canvas.face(slope, lit(house.tiles, light[0] * 1.1), BUILDING)
        gable = [(x, top, near), (ridge, crest, near), (back, top, near)]
        canvas.face(gable, lit(house.wall, light[1] * 0.95), BUILDING)
        for at in (near + 0.3, far - 1.2):
            stack = [(ridge - 0.5, crest - 1, at), (ridge + 0.5, crest - 1, at),
                     (ridge + 0.5, crest + 1.3, at), (ridge - 0.5, crest + 1.3, at)]  # fmt: skip
            if at > z[0]:
                canvas.face(stack, lit(house.wall, 0.7 * light[1]), BUILDING)
    facade(canvas, dice, house, (x, near), (x, far), light[0])
    if z[0] > 1.2 and corner:
        facade(canvas, dice, house, (x, near), (back, near), light[1])
    elif z[0] > 1.2:
        end = [(x, 0, near), (back, 0, near), (back, top, near), (x, top, near)]
        canvas.face(end, lit(house.wall, light[1]), BUILDING)
