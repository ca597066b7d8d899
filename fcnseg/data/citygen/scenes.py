"""Procedural street scenes: perspective streets with exact masks, drawn from a seed and an index.

Every scene is a metric street (`street`) seen by a dashboard camera (`canvas`), painted from far to near (`ground`,
`buildings`, `vehicles`, `people`, `objects`) and photographed in a look (`looks`): "synthetic", clean and game-like;
"real", textured, hazy and unevenly exposed, which stands for photographs where there are none; or "photo", with the
tones of CamVid's photographs, to be mixed with real ones. Looks also differ in what streets are like, so that there is
a domain gap to close. Rendered streets as training data are SYNTHIA's idea (Ros et al., CVPR 2016).
"""

import numpy as np

from fcnseg.data.citygen.canvas import Canvas, Dice
from fcnseg.data.citygen.ground import paint_ground, paint_sky
from fcnseg.data.citygen.looks import LOOK_BY_NAME, finish
from fcnseg.data.citygen.street import draw_camera, lay_out
from fcnseg.data.showing import Shown
from fcnseg.errors import InputError
from fcnseg.geometry import require_size
from fcnseg.labels import STREET11, LabelSpace

LOOKS = ("synthetic", "real", "photo")
"""The looks a scene can have."""

SIZE = (180, 240)
"""Height and width of scenes where nothing else is said."""


def render_scene(
    seed: int, index: int, size: tuple[int, int] = SIZE, look: str = "synthetic"
) -> tuple[np.ndarray, np.ndarray]:
    """Render one street scene; the same arguments give the same bytes in every process.

    Args:
        seed: which collection of scenes; not negative.
        index: which scene of the collection; not negative.
        size: height and width in pixels; another size shows the same scene.
        look: one of `LOOKS`.

    Returns:
        An image (H, W, 3) uint8 RGB and its mask (H, W) uint8 of `STREET11` class indices.

    Raises:
        InputError: for an unknown look, a size that is not positive, or a negative seed or index.
    """
    _check(seed, size, look)
    if index < 0:
        raise InputError(f"index {index} of a street scene is negative")
    style = LOOK_BY_NAME[look]
    dice = Dice(np.random.default_rng([seed, index, LOOKS.index(look)]))
    camera = draw_camera(dice, style, size)
    street = lay_out(dice, style, camera)
    canvas = Canvas(camera, ((0.0, 0.0, 0.0), 1.0))
    canvas.haze = paint_sky(canvas, dice, style), dice(*style.haze)
    paint_ground(canvas, dice, style, street)
    for thing in sorted(street.things, key=lambda thing: -thing.depth):
        thing.paint(canvas, dice)
    walls = abs(street.walls[0]), abs(street.walls[1])
    return finish(canvas.pixels, style, camera, walls, dice)


def _check(seed: int, size: tuple[int, int], look: str) -> None:
    if look not in LOOKS:
        raise InputError(f"look {look!r} is unknown; expected one of {', '.join(LOOKS)}")
    require_size(size)
    if seed < 0:
        raise InputError(f"seed {seed} of a street scene is negative")


class CityScenes(Shown):
    """A map-style dataset of rendered street scenes, made when they are asked for.

    Args:
        length: number of scenes.
        seed: different seeds give different scenes.
        look: one of `LOOKS`.
        size: height and width of the pictures; None: 180 and 240.

    Raises:
        InputError: for an unknown look, a size that is not positive, or a negative seed or length.
    """

    label_space: LabelSpace = STREET11

    def __init__(
        self, length: int, seed: int = 0, look: str = "synthetic", size: tuple[int, int] | None = SIZE
    ) -> None:
        size = size or SIZE
        _check(seed, size, look)
        if length < 0:
            raise InputError(f"length {length} of a set of street scenes is negative")
        self.length, self.seed, self.look = length, seed, look
        self.size = int(size[0]), int(size[1])

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, str]:
        """The image (H, W, 3) uint8 RGB, its mask (H, W) uint8 and its name, as "synthetic-0-000017"."""
        if not 0 <= index < self.length:
            raise IndexError(f"scene {index} of {self.length}")
        image, mask = render_scene(self.seed, index, self.size, self.look)
        return image, mask, f"{self.look}-{self.seed}-{index:06d}"
