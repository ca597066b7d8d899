"""Pedestrians and bicyclists of the procedural streets."""

from fcnseg.data.citygen.canvas import CIRCLE, Canvas, Colour, Dice, Outline, lit
from fcnseg.data.citygen.looks import Look
from fcnseg.labels import STREET11

PEDESTRIAN, BICYCLIST = STREET11.classes.index("pedestrian"), STREET11.classes.index("bicyclist")

_CLOTHES = (
    (35, 35, 40), (50, 55, 80), (90, 85, 80), (120, 40, 40), (60, 70, 55), (30, 40, 70),
    (190, 185, 180), (140, 110, 80), (45, 45, 50), (70, 100, 140),
)  # fmt: skip
_SKIN = ((225, 180, 150), (190, 140, 110), (120, 85, 65), (90, 60, 45))


def pedestrian(canvas: Canvas, dice: Dice, look: Look, x: float, z: float, size: float) -> None:
    """A walking or standing person `size` metres tall."""
    stride, lean = dice(-0.28, 0.28), dice(-0.04, 0.04)
    coat, trousers, skin = look.wear(dice, _CLOTHES), look.wear(dice, _CLOTHES), look.tint(dice, _SKIN)
    hair = look.tint(dice, ((30, 25, 20), (80, 55, 35), (150, 120, 80), (110, 105, 100)))
    broad, hem, swing = dice(0.19, 0.27), dice(0.7, 0.95), stride / 2
    parts: list[tuple[Outline, Colour]] = [
        (((-0.13, hem), (0.03, hem), (stride + 0.06, 0.0), (stride - 0.1, 0.0)), trousers),
        (((-0.03, hem), (0.13, hem), (-stride + 0.1, 0.0), (-stride - 0.06, 0.0)), lit(trousers, 0.85)),
        (((-broad, 1.38), (0.06 - broad, 1.45), (-0.14 - swing, 0.78), (-broad - 0.07, 0.8)), lit(coat, 0.8)),
        (((broad, 1.38), (broad - 0.06, 1.45), (0.14 - swing, 0.78), (broad + 0.07, 0.8)), lit(coat, 0.9)),
        (((-0.17, hem - 0.1), (0.17, hem - 0.1), (0.2, 1.2), (broad, 1.42), (0.06, 1.52), (-0.06, 1.52),
          (-broad, 1.42), (-0.2, 1.2)), coat),
        ([(lean + 0.1 * u, 1.6 + 0.13 * v) for u, v in CIRCLE], hair),
        ([(lean + 0.075 * u, 1.56 + 0.085 * v) for u, v in CIRCLE], skin if dice.chance(0.6) else hair),
    ]  # fmt: skip
    if dice.chance(0.35):
        bag = look.wear(dice, _CLOTHES, 0.4)
        parts.insert(5, (((0.15, 0.55), (0.36, 0.55), (0.34, 0.85), (0.17, 0.85)), bag))
    for outline, colour in parts:
        canvas.plate((x, z), [(dx * size / 1.72, y * size / 1.72) for dx, y in outline], colour, PEDESTRIAN)


def bicyclist(canvas: Canvas, dice: Dice, look: Look, x: float, z: float, along: bool) -> None:
    """A person on a bicycle: along the street seen from an end, across it seen from a side."""
    coat, trousers = look.wear(dice, (*_CLOTHES, (220, 215, 50)), 0.2), look.wear(dice, _CLOTHES)
    helmet = look.tint(dice, ((30, 30, 32), (225, 225, 220), (190, 40, 40), (50, 40, 30)))
    way, turn = (-1 if dice.chance(0.5) else 1), dice(-0.08, 0.08)
    parts: list[tuple[Outline, Colour]]
    if along:
        parts = [
            (((-0.04, 0.0), (0.04, 0.0), (0.04, 0.7), (-0.04, 0.7)), (18, 18, 20)),
            (((-0.3, 1.02), (0.3, 1.02), (0.3, 0.96), (-0.3, 0.96)), (40, 40, 42)),
            (((-0.2, 0.95), (0.0, 0.95), (-0.06, 0.32 + turn), (-0.17, 0.25 + turn)), trousers),
            (((0.0, 0.95), (0.2, 0.95), (0.17, 0.35 - turn), (0.06, 0.4 - turn)), lit(trousers, 0.85)),
            (((-0.23, 1.4), (-0.14, 1.46), (-0.24, 1.0), (-0.33, 1.0)), lit(coat, 0.85)),
            (((0.23, 1.4), (0.14, 1.46), (0.24, 1.0), (0.33, 1.0)), lit(coat, 0.9)),
            (((-0.18, 0.86), (0.18, 0.86), (0.24, 1.38), (0.1, 1.5), (-0.1, 1.5), (-0.24, 1.38)), coat),
        ]
        head = 0.0
    else:
        for hub in (-0.52, 0.52):
            rim = [(x + way * hub + 0.34 * u, 0.34 + 0.34 * v, z) for u, v in CIRCLE]
            canvas.glaze(rim, (70, 70, 72), 0.4, BICYCLIST)
            ring = [(hub + r * u, 0.34 + r * v) for r in (0.35, 0.29) for u, v in (*CIRCLE, CIRCLE[0])]
            canvas.plate((x, z), [(way * dx, y) for dx, y in ring], (22, 22, 24), BICYCLIST)
        parts = [
            (((-0.5, 0.34), (-0.15, 0.84), (0.38, 0.86), (0.0, 0.34)), (60, 60, 66)),
            (((0.36, 0.95), (0.44, 0.95), (0.55, 0.34), (0.5, 0.34)), (50, 50, 54)),
            (((-0.24, 0.95), (-0.08, 0.82), (0.24, 0.66), (0.06, 0.22 + turn), (-0.05, 0.22 + turn),
              (0.1, 0.62)), trousers),
            (((-0.3, 0.92), (-0.06, 0.88), (0.3, 1.36), (0.18, 1.5), (0.06, 1.48)), coat),
            (((0.2, 1.4), (0.28, 1.34), (0.46, 1.0), (0.4, 0.98)), lit(coat, 0.85)),
        ]  # fmt: skip
        head = 0.26
    parts.append(([(head + 0.105 * u, 1.62 + 0.13 * v) for u, v in CIRCLE], helmet))
    for outline, colour in parts:
        canvas.plate((x, z), [(way * dx, y) for dx, y in outline], colour, BICYCLIST)
