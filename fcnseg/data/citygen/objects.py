"""What stands in the procedural streets: trees, lamps, signs, posts and fences.

Every function paints one object at (x, z), in metres from the camera, onto a canvas. None looks at the
size of the picture, so a scene draws the same dice at every size.
"""

import numpy as np

from fcnseg.data.citygen.canvas import CIRCLE, Canvas, Dice, Outline, lit
from fcnseg.data.citygen.looks import Look
from fcnseg.data.citygen.textures import bare_trees, leafy_crowns
from fcnseg.labels import STREET11

_CLASSES = STREET11.classes
POLE, TREE = _CLASSES.index("pole"), _CLASSES.index("tree")
SIGN, FENCE = _CLASSES.index("sign"), _CLASSES.index("fence")

_LEAVES = ((70, 105, 45), (55, 90, 50), (95, 115, 55), (60, 80, 35), (110, 110, 50))
_BARK = ((85, 75, 65), (70, 62, 55), (105, 98, 85))
_METAL = ((95, 100, 105), (60, 65, 65), (140, 145, 145), (45, 55, 50), (35, 36, 38))
_SIGN_FACES = (
    ((195, 30, 35), (240, 240, 240)), ((25, 70, 160), (25, 70, 160)), ((240, 200, 40), (30, 30, 30)),
)  # fmt: skip
_SHOP_SIGNS = ((170, 40, 40), (30, 60, 120), (30, 90, 60), (230, 225, 215), (35, 35, 38), (220, 170, 40))

_BOARDS = 8
_LEVELS = np.linspace(0, 1, 256, dtype=np.float32)[:, None, None]


def tree(canvas: Canvas, dice: Dice, look: Look, x: float, z: float, height: float, bare: bool, light: float) -> None:
    """A tree with its trunk at x; bare in winter."""
    wide = height * dice(0.32, 0.48)
    bark = lit(look.tint(dice, _BARK), look.foliage)
    dark = np.array(bark) * 0.25 * light
    if bare:
        bright = np.array(bark) * 1.5 * light
        ramp = _ramp(canvas, dark, bright, z)
        canvas.stamp(dice.pick(bare_trees()), (x, z), (-wide, wide, 0.0, height), ramp, TREE)
        return
    leaf = look.foliage * np.array(look.tint(dice, _LEAVES, 0.2))
    thick, fork = dice(0.018, 0.03) * height, dice(0.12, 0.3) * height
    trunk = ((-thick, 0), (thick, 0), (0.7 * thick, 1.6 * fork), (-0.7 * thick, 1.6 * fork))
    canvas.plate((x, z), trunk, lit(bark, 0.7 * light), TREE)
    ramp = _ramp(canvas, leaf * 0.18 * light, leaf * 1.6 * light, z)
    canvas.stamp(dice.pick(leafy_crowns()), (x, z), (-wide, wide, fork, height), ramp, TREE)


def bush(canvas: Canvas, dice: Dice, look: Look, x: float, z: float, width: float, height: float) -> None:
    """A low leafy shrub, `width` and `height` in metres."""
    leaf = look.foliage * np.array(look.tint(dice, _LEAVES, 0.2))
    ramp = _ramp(canvas, leaf * 0.15, leaf * 1.3, z)
    wide, middle = 0.4 * width, 0.5 * height
    core = ((-wide, 0), (wide, 0), (0.75 * wide, middle), (-0.75 * wide, middle))
    canvas.plate((x, z), core, lit(tuple(leaf.tolist()), 0.4), TREE)
    box = (-width / 2, width / 2, -0.1 * height, height)
    canvas.stamp(dice.pick(leafy_crowns()), (x, z), box, ramp, TREE)


def _ramp(canvas: Canvas, dark: np.ndarray, bright: np.ndarray, z: float) -> np.ndarray:
    """(256, 1, 3) uint8 colours between two, as seen at distance z."""
    low, high = (np.array(canvas.ink(tuple(c.tolist()), z, 0)[:3], np.float32) for c in (dark, bright))
    return np.minimum(low + _LEVELS * (high - low), 255).astype(np.uint8)


def lamp_post(canvas: Canvas, dice: Dice, look: Look, x: float, z: float, height: float, reach: float) -> None:
    """A street lamp; `reach` metres of arm to the right (negative: to the left)."""
    metal, thick = look.tint(dice, _METAL), dice(0.05, 0.09)
    mast = ((-thick, 0), (thick, 0), (0.5 * thick, height), (-0.5 * thick, height))
    canvas.plate((x, z), mast, metal, POLE)
    foot = ((-1.5 * thick, 0), (1.5 * thick, 0), (1.5 * thick, 1), (-1.5 * thick, 1))
    canvas.plate((x, z), foot, metal, POLE)
    arm = ((0, -0.12), (reach, 0.15), (reach, 0.3), (0, 0.05))
    canvas.plate((x, z), [(dx, height + y) for dx, y in arm], metal, POLE)
    head = ((0.6 * reach, 0.1), (1.15 * reach, 0.12), (1.1 * reach, 0.36), (0.65 * reach, 0.34))
    canvas.plate((x, z), [(dx, height + y) for dx, y in head], lit(metal, 1.3), POLE)


def post(canvas: Canvas, dice: Dice, look: Look, x: float, z: float, height: float) -> None:
    """A plain post or bollard `height` metres tall."""
    thick = 0.075 if height < 1.5 else dice(0.045, 0.08)
    colour = look.tint(dice, (*_METAL, (150, 120, 90)))
    canvas.plate((x, z), ((-thick, 0), (thick, 0), (thick, height), (-thick, height)), colour, POLE)
    if height < 1.5 and dice.chance(0.5):
        low, high = height - 0.25, height - 0.1
        band = ((-thick, low), (thick, low), (thick, high), (-thick, high))
        canvas.plate((x, z), band, (225, 225, 220), POLE)


def sign_post(canvas: Canvas, dice: Dice, look: Look, x: float, z: float) -> None:
    """One or two traffic signs on a post."""
    top, size = dice(2.3, 3.2), dice(0.36, 0.55)
    post(canvas, dice, look, x, z, top + size)
    _traffic_sign(canvas, dice, look, x, z, (top, size))
    if dice.chance(0.35):
        _traffic_sign(canvas, dice, look, x, z, (top - size * 1.9, size * 0.8))


def _traffic_sign(canvas: Canvas, dice: Dice, look: Look, x: float, z: float, face: tuple[float, float]) -> None:
    height, size = face
    shape = dice.pick(("round", "triangle", "board", "round"))
    if shape == "round":
        outline: Outline = CIRCLE
    elif shape == "triangle":
        up = 1 if dice.chance(0.8) else -1
        outline = ((-1.05, -0.85 * up), (1.05, -0.85 * up), (0, up))
    else:
        wide = dice(0.7, 1.6)
        outline = ((-wide, -0.8), (wide, -0.8), (wide, 0.8), (-wide, 0.8))
    border, inside = dice.pick(_SIGN_FACES)
    if dice.chance(0.2):  # seen from behind
        border = inside = (110, 112, 112)
    for scale, colour in ((1.0, border), (0.74, inside)):
        paint = look.tint(dice, (colour,), 0.06)
        canvas.plate((x, z), [(scale * size * u, height + scale * size * v) for u, v in outline], paint, SIGN)
    mark = ((-0.4, -0.12), (0.4, -0.12), (0.4, 0.12), (-0.4, 0.12))
    tone = dice.pick(((25, 25, 28), (230, 230, 230), border))
    canvas.plate((x, z), [(size * u, height + size * v) for u, v in mark], tone, SIGN)


def traffic_light(canvas: Canvas, dice: Dice, look: Look, x: float, z: float) -> None:
    """A signal head on a post; the head counts as a sign."""
    top = dice(2.2, 2.8)
    post(canvas, dice, look, x, z, top + 0.2)
    shell = look.tint(dice, ((22, 24, 24), (35, 38, 36)))
    canvas.plate((x, z), ((-0.24, top), (0.24, top), (0.24, top + 1.05), (-0.24, top + 1.05)), shell, SIGN)
    on = dice.integer(0, 2)
    for i, colour in enumerate(((60, 240, 150), (255, 190, 40), (255, 50, 40))):
        tone = colour if i == on else lit(colour, 0.15)
        lamp = [(0.12 * u, top + 0.2 + 0.32 * i + 0.12 * v) for u, v in CIRCLE]
        canvas.plate((x, z), lamp, tone, SIGN)


def hanging_sign(canvas: Canvas, dice: Dice, look: Look, x: float, z: float) -> None:
    """A shop's sign that sticks out from its wall."""
    y, wide, tall = dice(2.7, 4.2), dice(0.35, 0.7), dice(0.35, 0.8)
    paint = look.tint(dice, _SHOP_SIGNS)
    for scale, colour in ((1.0, paint), (0.55, dice.pick(((235, 235, 230), (30, 30, 30))))):
        w, t = wide * scale, tall * scale * (1 if scale == 1 else 0.6)
        canvas.plate((x, z), ((-w, y - t), (w, y - t), (w, y + t), (-w, y + t)), colour, SIGN)


def railing(canvas: Canvas, dice: Dice, look: Look, x: float, z: float, length: float, height: float) -> None:
    """A see-through metal fence along the street from z to z + length; its openings count as fence."""
    metal = lit(look.tint(dice, ((40, 42, 44), (60, 75, 65), (130, 132, 132), (225, 225, 220))), look.ironwork)
    ends = (x, 0.0, z), (x, 0.0, z + length), (x, height, z + length), (x, height, z)
    canvas.glaze(ends, metal, 0.45, FENCE)
    bars = np.arange(z, z + length, 0.35 if z > 12 else 0.2)[:80]
    quads = np.empty((len(bars), 4, 3))
    quads[..., 0] = x
    quads[..., 1] = (0.05, 0.05, height, height)
    quads[..., 2] = bars[:, None] + np.array([0, 0.04, 0.04, 0])
    if z < 25:
        canvas.faces(quads, metal, FENCE)
    for y in (height - 0.06, 0.12):
        rail = [(x, y, z), (x, y, z + length), (x, y + 0.07, z + length), (x, y + 0.07, z)]
        canvas.face(rail, metal, FENCE)


def panel_fence(
    canvas: Canvas, dice: Dice, look: Look, start: tuple[float, float], end: tuple[float, float],
    height: float,
) -> None:  # fmt: skip
    """A closed fence of boards between two points (x, z)."""
    wood = look.tint(dice, ((140, 110, 80), (110, 90, 70), (160, 150, 135), (90, 100, 90), (205, 205, 200)))
    wood = lit(wood, look.ironwork)
    run = (end[0] - start[0]) / _BOARDS, (end[1] - start[1]) / _BOARDS
    for i in range(_BOARDS):
        x0, z0 = start[0] + i * run[0], start[1] + i * run[1]
        x1, z1 = x0 + run[0], z0 + run[1]
        tone = lit(wood, dice(0.82, 1.05))
        canvas.face([(x0, 0, z0), (x1, 0, z1), (x1, height, z1), (x0, height, z0)], tone, FENCE)
