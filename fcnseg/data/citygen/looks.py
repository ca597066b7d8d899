"""The looks of the procedural street scenes: their layout statistics, paints and camera effects."""

from dataclasses import dataclass

import cv2
import numpy as np

from fcnseg.data.citygen.canvas import Camera, Colour, Dice
from fcnseg.data.citygen.textures import grain_tile, sensor_tile

Range = tuple[float, float]
"""Lowest and highest value of a uniform draw."""


@dataclass(frozen=True)
class Look:
    """How a look's streets are laid out, painted and photographed; ranges are drawn once per scene.

    Attributes:
        focal, horizon, eye, drift, bend: see `Camera`; drift and bend are the largest absolute values.
        lanes: numbers of lanes to choose from.
        lane_width, pavement: metres.
        storeys: storeys of a street's typical building.
        gap, park, setback: chances that a stretch is a side street or a park, that a side has gardens.
        tree_row, tree_spacing: chance that trees line a side, and metres between them.
        bare: chance that a scene's trees are bare.
        parked: chance that cars are parked along a kerb, and the share of taken places.
        traffic, pedestrians, cyclists, signs, posts: typical numbers in a scene.
        railing: chance of a railing along a kerb.
        clutter: patches, manholes and cracks on the road.
        vividness: factor on the saturation of paints; 1 keeps the swatches.
        paint, clothes: factors on the brightness of paints, and on that of what people wear.
        sky: swatches, from the zenith to the horizon.
        sunny: chance of sunshine with cast shadows, and how much of the light a shadow takes.
        haze: metres in which things fade to 1/e.
        grain: strength of surface texture, 0 to 1.
        exposure, gamma, contrast, balance: factor on light, exponent on tones, factor on their distance from
            a middle grey, largest relative shift of red and blue.
        blur, noise, vignette: lens blur and sensor noise (standard deviations in 1/240 picture widths and
            in grey levels), loss of light at the corners.
        asphalt, masonry, foliage, ironwork: factors on the brightness of roads, walls, leaves and railings.
        plain: how far pavements take the road's colour, 0 to 1.
    """

    focal: Range
    horizon: Range
    eye: Range
    drift: float
    bend: float
    lanes: tuple[int, ...]
    lane_width: Range
    pavement: Range
    storeys: Range
    gap: float
    park: float
    setback: float
    tree_row: float
    tree_spacing: Range
    bare: float
    parked: Range
    traffic: float
    pedestrians: float
    cyclists: float
    signs: float
    posts: float
    railing: float
    clutter: float
    vividness: float
    paint: float
    clothes: float
    sky: tuple[tuple[Colour, Colour], ...]
    sunny: Range
    haze: Range
    grain: float
    exposure: Range
    gamma: Range
    contrast: Range
    balance: float
    blur: Range
    noise: Range
    vignette: Range
    asphalt: float = 1.0
    masonry: float = 1.0
    foliage: float = 1.0
    ironwork: float = 1.0
    plain: float = 0.0

    def wear(self, dice: Dice, swatches: tuple[Colour, ...], spread: float = 0.15) -> Colour:
        """A tint for clothes, most of which are dark in photographs."""
        red, green, blue = self.tint(dice, swatches, spread)
        return red * self.clothes, green * self.clothes, blue * self.clothes

    def tint(self, dice: Dice, swatches: tuple[Colour, ...], spread: float = 0.12) -> Colour:
        """A paint near one of the swatches, in this look's saturation and brightness."""
        red, green, blue = dice.pick(swatches)
        grey, vivid = (red + green + blue) / 3, self.vividness
        value = self.paint * dice(1 - 2 * spread, 1 + spread)
        base, hue = grey * (1 - vivid), grey * spread / 2
        return (
            max((base + red * vivid + dice(-hue, hue)) * value, 4.0),
            max((base + green * vivid + dice(-hue, hue)) * value, 4.0),
            max((base + blue * vivid + dice(-hue, hue)) * value, 4.0),
        )


SYNTHETIC = Look(
    focal=(0.85, 1.0), horizon=(0.42, 0.52), eye=(1.4, 1.9), drift=0.06, bend=0.0004,
    lanes=(2, 2, 3, 4), lane_width=(3.1, 3.6), pavement=(2.5, 5.0), storeys=(2, 6),
    gap=0.25, park=0.15, setback=0.3, tree_row=0.45, tree_spacing=(12, 20), bare=0.0,
    parked=(0.4, 0.35), traffic=3.5, pedestrians=7, cyclists=2.5, signs=5, posts=3, railing=0.35, clutter=0.3,
    vividness=1.35, paint=1.05, clothes=1.0,
    sky=(
        ((70, 130, 225), (185, 215, 245)), ((100, 160, 235), (215, 230, 245)),
        ((130, 170, 215), (225, 225, 225)),
    ),
    sunny=(0.8, 0.35), haze=(350, 700), grain=0.10,
    exposure=(0.92, 1.08), gamma=(0.95, 1.05), contrast=(1.0, 1.0), balance=0.02,
    blur=(0.0, 0.25), noise=(0.0, 1.5), vignette=(0.0, 0.03),
)  # fmt: skip

REAL = Look(
    focal=(0.9, 1.15), horizon=(0.4, 0.56), eye=(1.2, 1.55), drift=0.10, bend=0.0010,
    lanes=(2, 2, 2, 3), lane_width=(2.7, 3.3), pavement=(1.8, 4.5), storeys=(2, 5),
    gap=0.16, park=0.22, setback=0.35, tree_row=0.5, tree_spacing=(7, 14), bare=0.5,
    parked=(0.45, 0.6), traffic=2.4, pedestrians=8, cyclists=2.2, signs=4, posts=4, railing=0.4, clutter=1.0,
    vividness=0.6, paint=0.85, clothes=0.6,
    sky=(
        ((190, 215, 245), (240, 248, 252)), ((225, 235, 242), (245, 248, 250)),
        ((240, 242, 245), (250, 250, 250)), ((150, 165, 180), (205, 212, 216)),
        ((150, 190, 240), (235, 244, 250)),
    ),
    sunny=(0.5, 0.5), haze=(160, 700), grain=0.26,
    exposure=(0.55, 1.4), gamma=(0.85, 1.15), contrast=(1.0, 1.4), balance=0.08,
    blur=(0.1, 0.55), noise=(1.0, 4.5), vignette=(0.05, 0.3),
)  # fmt: skip

# Tones, textures and frequencies as measured on the training images of CamVid, where they can be measured.
PHOTO = Look(
    focal=(0.9, 1.15), horizon=(0.42, 0.54), eye=(1.2, 1.55), drift=0.10, bend=0.0010,
    lanes=(2, 2, 3, 3), lane_width=(2.8, 3.6), pavement=(1.8, 5.0), storeys=(1, 5),
    gap=0.18, park=0.22, setback=0.4, tree_row=0.5, tree_spacing=(7, 16), bare=0.8,
    parked=(0.45, 0.55), traffic=2.2, pedestrians=7, cyclists=1.6, signs=4, posts=4, railing=0.45, clutter=0.6,
    vividness=0.45, paint=0.9, clothes=0.5,
    sky=(
        ((225, 235, 248), (245, 250, 253)), ((240, 245, 250), (252, 253, 254)),
        ((250, 250, 252), (254, 254, 254)), ((195, 205, 215), (235, 238, 240)),
        ((190, 215, 248), (240, 247, 252)),
    ),
    sunny=(0.6, 0.5), haze=(250, 900), grain=0.18,
    exposure=(0.6, 1.35), gamma=(0.85, 1.15), contrast=(1.0, 1.4), balance=0.06,
    blur=(0.0, 0.4), noise=(1.0, 4.0), vignette=(0.0, 0.2),
    asphalt=0.85, masonry=1.1, foliage=1.3, ironwork=0.7, plain=0.6,
)  # fmt: skip

LOOK_BY_NAME = {"synthetic": SYNTHETIC, "real": REAL, "photo": PHOTO}

# How each class of STREET11 lies (1: on the ground, 2: along the street's walls, 0: facing the camera) and
# how strongly it shows surface texture.
_SURFACE = np.zeros(256, np.uint8)
_SURFACE[[3, 4]], _SURFACE[[1, 7]] = 1, 2
_GRAIN = np.array([0.05, 0.8, 0.5, 0.8, 1.0, 0.6, 0.2, 0.8, 0.35, 0.6, 0.6], np.float32)


def surface_grain(camera: Camera, walls: tuple[float, float], mask: np.ndarray) -> np.ndarray:
    """(H, W) float32 texture from -1 to 1 that lies on the ground and on the street's walls in perspective.

    Args:
        camera: where the scene is seen from.
        walls: metres from the camera to the left and right building lines.
        mask: (H, W) class indices; road and pavement lie flat, buildings and fences stand along the street.
    """
    height, width = mask.shape
    focal, unit = camera.focal_px, 240 / camera.width
    across = (np.arange(width, dtype=np.float32) - camera.centre_px) * camera.mirror - camera.drift * focal
    down = np.arange(height, dtype=np.float32) - camera.horizon_px
    row_z = focal * camera.eye / np.maximum(down, 0.004 * camera.width)
    reach = np.where(across < 0, walls[0], walls[1]).astype(np.float32)
    column_z = focal * reach / np.maximum(np.abs(across), 0.02 * camera.width)
    kind = cv2.LUT(mask, _SURFACE)
    flat = (kind == 1) & (down > 0)[:, None]
    wall = (kind == 2) & (column_z < 45)  # beyond, the texture would only alias
    # Texture is 24 tile pixels per metre; screen-space texture moves with the picture's size.
    map_x, map_y = np.empty((2, height, width), np.float32)
    map_x[:], map_y[:] = np.float32(1.7 * unit) * across, (np.float32(1.7 * unit) * down)[:, None]
    np.copyto(map_x, row_z[:, None] * np.float32(24 / focal) * across, where=flat)
    np.copyto(map_y, row_z[:, None] * np.float32(18), where=flat)
    np.copyto(map_x, column_z * np.float32(24), where=wall)
    np.copyto(map_y, down[:, None] * (column_z * np.float32(24 / focal)), where=wall)
    return cv2.remap(grain_tile(), map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)


def finish(
    pixels: np.ndarray, look: Look, camera: Camera, walls: tuple[float, float], dice: Dice
) -> tuple[np.ndarray, np.ndarray]:
    """Photograph a painted canvas.

    Args:
        pixels: (H, W, 4) uint8: red, green, blue, class.
        look: whose texture, exposure, lens and sensor to use.
        camera, walls: see `surface_grain`.
        dice: draws the effects' strengths.

    Returns:
        The image (H, W, 3) uint8 RGB and the mask (H, W) uint8.
    """
    mask = np.ascontiguousarray(pixels[..., 3])
    height, width = mask.shape
    exposure, gamma, vignette = dice(*look.exposure), dice(*look.gamma), dice(*look.vignette)
    warmth, tinge = dice(-look.balance, look.balance), dice(-look.balance, look.balance) / 3
    blur, noise, lift = dice(*look.blur), dice(*look.noise), dice(0, 10)
    shift = dice.integer(0, 255), dice.integer(0, 255)

    strength, light = np.zeros(256, np.float32), np.full(256, exposure, np.float32)
    strength[: len(_GRAIN)] = look.grain * _GRAIN * dice(0.7, 1.4)
    light[0] = exposure**0.25  # cameras clip the sky to white however dark the street below it is
    x = np.linspace(-1, 1, width, dtype=np.float32)[None]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    gain = 1 + cv2.LUT(mask, strength) * surface_grain(camera, walls, mask)
    gain *= cv2.LUT(mask, light) * (1 - np.float32(vignette / 2) * (x * x + y * y))
    image: np.ndarray = cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB).astype(np.float32)
    image *= gain[..., None]
    if (sigma := blur * width / 240) > 0.2:
        image = cv2.GaussianBlur(image, (0, 0), sigma)
    if noise > 0.3:
        image += _sensor_noise(height, width, shift) * np.float32(noise)
    levels = np.arange(256)[:, None] / 255 * [1 + warmth, 1 + tinge, 1 - warmth]
    levels = 0.35 + (levels - 0.35) * dice(*look.contrast)
    tones = np.clip(lift + (255 - lift) * np.clip(levels, 0, None) ** gamma, 0, 255).astype(np.uint8)
    return cv2.LUT(cv2.convertScaleAbs(np.maximum(image, 0)), tones.reshape(256, 1, 3)), mask


def _sensor_noise(height: int, width: int, shift: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) float32 noise of standard deviation 1, cut from the tile at `shift`."""
    tile, (down, across) = sensor_tile(), shift
    rows, columns = -(-(down + height) // len(tile)), -(-(across + width) // len(tile))
    if rows * columns > 1:
        tile = np.tile(tile, (rows, columns, 1))
    return tile[down : down + height, across : across + width]
