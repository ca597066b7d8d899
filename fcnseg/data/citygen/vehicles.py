"""Cars, vans and buses of the procedural streets, seen from an end and a side or across."""

from fcnseg.data.citygen.canvas import CIRCLE, Canvas, Colour, Dice, Outline, lit
from fcnseg.data.citygen.looks import Look
from fcnseg.labels import STREET11

ROAD, CAR = STREET11.classes.index("road"), STREET11.classes.index("car")

_COATS = (
    (190, 192, 195), (40, 42, 46), (225, 225, 225), (35, 50, 110), (150, 30, 30), (95, 98, 102),
    (30, 80, 55), (120, 140, 160), (170, 150, 110), (60, 90, 160), (200, 160, 40),
)  # fmt: skip

# Outline of the side: (share of the length from the rear, metres of height); its windows; length and width in
# metres.
_MODELS: dict[str, tuple[Outline, Outline, float, float]] = {
    "hatchback": (
        ((0, 0.3), (0, 0.9), (0.1, 1.42), (0.5, 1.48), (0.73, 1.0), (0.97, 0.82), (1, 0.3)),
        ((0.1, 0.95), (0.17, 1.36), (0.49, 1.41), (0.67, 1.0)), 3.9, 1.7,
    ),
    "saloon": (
        ((0, 0.3), (0, 0.92), (0.17, 1.0), (0.31, 1.4), (0.58, 1.42), (0.75, 0.98), (0.98, 0.8), (1, 0.3)),
        ((0.24, 1.0), (0.34, 1.34), (0.57, 1.36), (0.7, 1.0)), 4.6, 1.8,
    ),
    "suv": (
        ((0, 0.35), (0, 1.1), (0.07, 1.68), (0.58, 1.72), (0.74, 1.15), (0.98, 1.0), (1, 0.35)),
        ((0.1, 1.15), (0.14, 1.6), (0.56, 1.63), (0.68, 1.15)), 4.5, 1.9,
    ),
    "van": (
        ((0, 0.4), (0, 2.1), (0.72, 2.15), (0.86, 1.3), (0.99, 1.1), (1, 0.4)),
        ((0.62, 1.3), (0.63, 1.9), (0.72, 1.9), (0.82, 1.3)), 5.0, 1.95,
    ),
    "bus": (
        ((0, 0.4), (0, 3.0), (0.97, 3.05), (1, 2.6), (1, 0.4)),
        ((0.03, 1.5), (0.03, 2.5), (0.95, 2.5), (0.95, 1.5)), 10.0, 2.5,
    ),
}  # fmt: skip
CARS = ("hatchback", "hatchback", "hatchback", "saloon", "saloon", "suv", "suv", "van")
TRAFFIC = (*CARS, "hatchback", "saloon", "van", "bus")


def vehicle(canvas: Canvas, dice: Dice, look: Look, x: float, z: float, model: str, away: bool) -> None:
    """A vehicle along the street whose near end is at z; seen from behind when it drives away."""
    outline, glazing, length, width = _MODELS[model]
    coat, light = look.tint(dice, _COATS), dice(0.75, 1.0)
    glass = look.tint(dice, ((30, 36, 42), (60, 70, 80), (95, 108, 120)))
    left, right = x - width / 2, x + width / 2
    middle = x + canvas.camera.offset(z)
    side = left if middle > width / 2 else right if middle < -width / 2 else None
    if away:
        profile = [(z + s * length, y) for s, y in outline]
    else:
        profile = [(z + (1 - s) * length, y) for s, y in reversed(outline)]
    shade = [(left - 0.15, 0, z - 0.25), (right + 0.15, 0, z - 0.25), (right + 0.1, 0, z + length)]
    canvas.glaze([*shade, (left - 0.1, 0, z + length)], (8, 8, 10), 0.75, ROAD)
    for (z0, y0), (z1, y1) in zip(profile[-2::-1], profile[:0:-1], strict=True):
        rise, run = abs(y1 - y0), abs(z1 - z0)
        screen = rise > 0.3 and y0 + y1 > 1.9 and run > 0.2 and model != "bus"
        colour = lit(glass, 1.2) if screen else lit(coat, light * (0.75 + 0.45 * run / (run + rise)))
        canvas.face([(left, y0, z0), (right, y0, z0), (right, y1, z1), (left, y1, z1)], colour, CAR)
    if side is not None:
        _vehicle_side(canvas, side, z, (length, away), (profile, glazing), (lit(coat, light), glass))
    if z < 45:
        _vehicle_end(canvas, dice, (left, right, z), (profile[0][1], profile[1][1]), glass, model, away)


def _vehicle_side(
    canvas: Canvas, side: float, z: float, course: tuple[float, bool], shapes: tuple[Outline, Outline],
    paints: tuple[Colour, Colour],
) -> None:  # fmt: skip
    length, away = course
    profile, glazing = shapes
    at = [z + (s if away else 1 - s) * length for s, _ in glazing]
    canvas.face([(side, y, zz) for zz, y in profile], lit(paints[0], 0.85), CAR)
    canvas.face([(side, y, zz) for zz, (_, y) in zip(at, glazing, strict=True)], paints[1], CAR)
    for s in (0.18, 0.8) if z < 35 else ():
        hub = z + (s if away else 1 - s) * length
        for radius, tone in ((0.34, 14), (0.19, 95)):
            canvas.face([(side, 0.33 + radius * v, hub + radius * u) for u, v in CIRCLE], (tone,) * 3, CAR)


def _vehicle_end(
    canvas: Canvas, dice: Dice, box: tuple[float, float, float], heights: tuple[float, float], glass: Colour,
    model: str, away: bool,
) -> None:  # fmt: skip
    """Tyres, bumper, lamps, number plate; the window of tall vehicles."""
    left, right, z = box
    base, belt = heights
    width = right - left

    def patch(x0: float, x1: float, y0: float, y1: float, colour: Colour) -> None:
        x0, x1 = left + x0 * width, left + x1 * width
        canvas.face([(x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)], colour, CAR)

    lamp: Colour = (190, 20, 15) if away else (235, 235, 225)
    lamp = lit(lamp, 1.2 if dice.chance(0.3) else 0.75)
    plate = (215, 190, 60) if away and dice.chance(0.6) else (220, 220, 215)
    patch(0.05, 0.2, 0.0, base, (12, 12, 12))
    patch(0.8, 0.95, 0.0, base, (12, 12, 12))
    patch(0.0, 1.0, base, base + 0.17, (45, 45, 48))
    low = belt - 0.32 if belt < 1.5 else 0.75
    patch(0.02, 0.2, low, low + 0.2, lamp)
    patch(0.8, 0.98, low, low + 0.2, lamp)
    patch(0.36, 0.64, base + 0.2, base + 0.33, plate)
    if model in ("van", "bus") and belt > 1.5:
        patch(0.08, 0.92, 0.55 * belt, 0.9 * belt, glass)


def crossing_vehicle(canvas: Canvas, dice: Dice, look: Look, x: float, z: float, model: str) -> None:
    """A vehicle across the street, seen from its side."""
    outline, glazing, length, _ = _MODELS[model]
    coat, glass = look.tint(dice, _COATS), look.tint(dice, ((30, 36, 42), (60, 70, 80)))
    way = -1 if dice.chance(0.5) else 1
    half = 0.51 * length
    canvas.plate((x, z), ((-half, 0), (half, 0), (half, 0.3), (-half, 0.3)), (10, 10, 10), ROAD)
    canvas.plate((x, z), [(way * (s - 0.5) * length, y) for s, y in outline], coat, CAR)
    canvas.plate((x, z), [(way * (s - 0.5) * length, y) for s, y in glazing], glass, CAR)
    for s in (-0.31, 0.31):
        for radius, tone in ((0.34, 14), (0.18, 90)):
            wheel = [(s * length + radius * u, 0.33 + radius * v) for u, v in CIRCLE]
            canvas.plate((x, z), wheel, (tone,) * 3, CAR)
