"""Sky and ground of the procedural streets: clouds, road, pavements, lane marks and cast shadows."""

import cv2
import numpy as np

from fcnseg.data.citygen.canvas import Camera, Canvas, Colour, Dice, lit
from fcnseg.data.citygen.looks import Look
from fcnseg.data.citygen.street import Patch, Street
from fcnseg.data.citygen.textures import cloud_tile
from fcnseg.labels import STREET11

SKY, ROAD = STREET11.classes.index("sky"), STREET11.classes.index("road")
PAVEMENT, TREE = STREET11.classes.index("pavement"), STREET11.classes.index("tree")

_ASPHALT = ((98, 98, 102), (112, 110, 108), (84, 86, 90), (125, 122, 120))
_PAVING = ((128, 124, 118), (110, 108, 106), (145, 138, 128), (120, 105, 98), (100, 100, 102))
_GRASS = ((88, 105, 55), (105, 115, 65), (75, 90, 50))
_SHIFT, _UNIT = 4, 16
_NEAR = 1.0
_STEPS = np.linspace(0, 1, 10)


def paint_sky(canvas: Canvas, dice: Dice, look: Look) -> Colour:
    """Fill the canvas with sky and clouds; returns the colour at the horizon."""
    camera = canvas.camera
    zenith, low = (np.array(c, np.float32) * np.float32(dice(0.93, 1.03)) for c in dice.pick(look.sky))
    cover, offset = dice(-0.5, 0.7), (dice(0, 512), dice(0, 512))
    cloud = np.float32(250 * dice(0.75, 1.0))
    bottom = min(max(int(camera.horizon_px) + 2, 1), camera.height)
    focal = np.float32(camera.focal_px)
    rise = np.maximum(camera.horizon_px - np.arange(bottom, dtype=np.float32), 0)[:, None] / focal
    blend = np.clip(rise / 0.5, 0, 1)[..., None] ** 0.7
    sky = low + (zenith - low) * blend
    reach = 60 / (rise + np.float32(0.08))  # clouds lie on a plane overhead, which the horizon never reaches
    across = (np.arange(camera.width, dtype=np.float32) - camera.centre_px) / focal
    x = reach * across + np.float32(offset[0])
    y = np.repeat(reach + np.float32(offset[1]), camera.width, axis=1)
    veil = cv2.remap(cloud_tile(), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    veil = np.clip(veil * np.float32(1.6) + np.float32(cover), 0, 0.85) * np.minimum(rise * 8, 1)
    canvas.pixels[:bottom, :, :3] = np.clip(sky + (cloud - sky) * veil[..., None], 0, 255)
    canvas.pixels[..., 3] = SKY
    red, green, blue = low.tolist()
    return red, green, blue


def paint_ground(canvas: Canvas, dice: Dice, look: Look, street: Street) -> None:
    """Paint everything flat, then lay shadows and haze over it."""
    far = street.end + 14 if street.closed else 400.0
    asphalt = lit(look.tint(dice, _ASPHALT, 0.06), look.asphalt)  # never far from grey
    paving, grass = (look.tint(dice, swatches, 0.15) for swatches in (_PAVING, _GRASS))
    paving, grass = _mix(paving, asphalt, look.plain), lit(grass, look.foliage)
    top = max(int(np.ceil(canvas.camera.horizon_px)), 0)
    canvas.pixels[top:] = (*paving, PAVEMENT)
    _fill(canvas, street.lawns, grass, TREE)
    _fill(canvas, [_strip(street.fronts[0], street.fronts[1], _NEAR, far)], paving, PAVEMENT)
    stone = [c * dice(1.0, 1.3) for c in paving]
    _fill(canvas, [_strip(street.kerbs[0] - 0.15, street.kerbs[1] + 0.15, _NEAR, far)], stone, PAVEMENT)
    left = np.arange(street.fronts[0], street.kerbs[0], 0.9)
    right = np.arange(street.kerbs[1] + 0.3, street.fronts[1], 0.9)
    joints = [_strip(x, x + 0.04, _NEAR, 40) for x in (*left, *right)]
    _fill(canvas, joints, [c * 0.85 for c in paving], PAVEMENT)
    _fill(canvas, street.side_streets, asphalt, ROAD)
    _fill(canvas, [_strip(*street.kerbs, _NEAR, far)], asphalt, ROAD)
    gutter = [_strip(street.kerbs[0], street.kerbs[0] + 0.25, _NEAR, far)]
    gutter.append(_strip(street.kerbs[1] - 0.25, street.kerbs[1], _NEAR, far))
    _fill(canvas, gutter, [c * 0.75 for c in asphalt], ROAD)
    _patches(canvas, dice, look, street, asphalt)
    _marks(canvas, dice, look, street)
    _settle(canvas, street.shadows, look.sunny[1], top)


def _mix(one: Colour, other: Colour, share: float) -> Colour:
    red, green, blue = (a + (b - a) * share for a, b in zip(one, other, strict=True))
    return red, green, blue


def _strip(x0: float, x1: float, z0: float, z1: float) -> Patch:
    """A band along the street, with corners enough to follow its bend."""
    patch = np.empty((2 * len(_STEPS), 2))
    patch[: len(_STEPS), 0], patch[len(_STEPS) :, 0] = x0, x1
    patch[: len(_STEPS), 1] = z0 * (z1 / z0) ** _STEPS
    patch[len(_STEPS) :, 1] = patch[len(_STEPS) - 1 :: -1, 1]
    return patch


def _pixels(camera: Camera, patches: list[Patch]) -> list[np.ndarray]:
    """Fixed-point corners of each patch in the picture."""
    if not patches:
        return []
    corners = np.concatenate(patches)
    points = np.stack([corners[:, 0], np.zeros(len(corners)), np.maximum(corners[:, 1], _NEAR)], 1)
    pixels = (camera.project(points) * _UNIT).astype(np.int32)
    return np.split(pixels, np.cumsum([len(patch) for patch in patches])[:-1])


def _fill(canvas: Canvas, patches: list[Patch], colour: Colour | list[float], label: int) -> None:
    for corners in _pixels(canvas.camera, patches):
        cv2.fillPoly(canvas.pixels, [corners], (*colour, label), cv2.LINE_8, _SHIFT)


def _rectangle(x: float, z: float, width: float, length: float) -> Patch:
    return np.array([(x, z), (x + width, z), (x + width, z + length), (x, z + length)])


def _patches(canvas: Canvas, dice: Dice, look: Look, street: Street, asphalt: Colour) -> None:
    """Repairs, stains and manhole covers."""
    for _ in range(dice.count(6 * look.clutter)):
        x, z = dice(*street.road), 4 * 8 ** dice()
        tone = dice(0.8, 1.13)
        patch = _rectangle(x, z, dice(0.3, 2.0), dice(0.5, 6))
        _fill(canvas, [patch], [c * tone for c in asphalt], ROAD)
    for _ in range(dice.count(2 * look.clutter)):
        x, z, turn = dice(*street.road), dice(4, 25), np.linspace(0, 2 * np.pi, 12, endpoint=False)
        cover = np.stack([x + 0.33 * np.cos(turn), z + 0.33 * np.sin(turn)], 1)
        _fill(canvas, [cover], [c * 0.5 for c in asphalt], ROAD)


def _marks(canvas: Canvas, dice: Dice, look: Look, street: Street) -> None:
    """Lane dividers, edge lines, crossings and arrows; all of them are road."""
    white = look.tint(dice, ((225, 225, 222), (200, 200, 196), (180, 180, 178)))
    yellow = look.tint(dice, ((205, 170, 60), (180, 150, 70)))
    phase, dash, period = dice(1, 6), dice(1.5, 4), dice(5, 8)
    for lane in range(1, street.lanes):
        x = street.road[0] + lane * street.lane - 0.07
        if lane == (street.lanes + 1) // 2 and dice.chance(0.2):
            _fill(canvas, [_strip(x, x + 0.14, _NEAR, 150)], white, ROAD)
            continue
        dashes = [_rectangle(x, z, 0.14, dash) for z in np.arange(phase, 80, period)]
        _fill(canvas, dashes, white, ROAD)
    for x, sign in zip(street.road, (1, -1), strict=True):
        if dice.chance(0.4):
            colour = yellow if dice.chance(0.6) else white
            lines = (0.3, 0.55) if dice.chance(0.6) else (0.3,)
            bands = [_strip(x + sign * d, x + sign * (d + 0.09), _NEAR, 120) for d in lines]
            _fill(canvas, bands, colour, ROAD)
    if dice.chance(0.25):
        z, left, right = dice(7, 25), *street.road
        bars = [_rectangle(x, z, 0.55, 3.0) for x in np.arange(left + 0.3, right - 0.5, 1.1)]
        _fill(canvas, bars, white, ROAD)
    if dice.chance(0.3):
        arrow = np.array([(-0.1, 0), (0.1, 0), (0.1, 2.2), (0.4, 2.2), (0, 4), (-0.4, 2.2), (-0.1, 2.2)])
        arrow[:, 1] += dice(6, 20)
        _fill(canvas, [arrow], white, ROAD)
    if dice.chance(0.25):
        _fill(canvas, [_rectangle(street.road[0], dice(8, 30), street.lane, 0.35)], white, ROAD)


def _settle(canvas: Canvas, shadows: list[Patch], darkness: float, top: int) -> None:
    """Darken the ground where the sun does not reach, and fade it to the haze with distance."""
    camera = canvas.camera
    view = canvas.pixels[top:]
    if not len(view):
        return
    sharp = np.zeros(view.shape[:2], np.uint8)
    for corners in _pixels(camera, shadows):
        cv2.fillPoly(sharp, [corners - np.array([0, top * _UNIT], np.int32)], 255, cv2.LINE_8, _SHIFT)
    shade = cv2.GaussianBlur(sharp, (0, 0), max(camera.width / 240, 0.3))
    colour, distance = canvas.haze
    down = np.arange(top, camera.height, dtype=np.float32) - camera.horizon_px
    depth = camera.focal_px * camera.eye / np.maximum(down, 1e-3)
    keep = np.exp(-depth / distance).astype(np.float32)[:, None, None]
    light = (1 - shade[..., None] * np.float32(darkness / 255)) * keep
    view[..., :3] = view[..., :3] * light + np.array(colour, np.float32) * (1 - keep)
