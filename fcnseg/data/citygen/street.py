"""The layout of a procedural street: what stands where, from the kerbs to the skyline."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from fcnseg.data.citygen import objects, people, vehicles
from fcnseg.data.citygen.buildings import House, build, building, facade
from fcnseg.data.citygen.canvas import Camera, Canvas, Dice
from fcnseg.data.citygen.looks import Look

Paint = Callable[[Canvas, Dice], None]
Patch = np.ndarray
"""(N, 2) corners (x, z) of a polygon on the ground, in metres."""


@dataclass(frozen=True)
class Thing:
    """Something to paint, at its depth in metres; what reaches over a range counts by its far end."""

    depth: float
    paint: Paint


@dataclass
class Street:
    """A street in metres; the left side has negative x, the camera drives on the left.

    Attributes:
        camera: where the street is seen from; what it cannot see is not added.
        lane: width of a lane.
        lanes: number of lanes.
        road: x of the left and right edges of the carriageway, without parking bays.
        kerbs: x of the left and right kerbs.
        fronts: x where the pavements end.
        walls: x of the building lines.
        end: depth where the street ends.
        closed: whether buildings stand across its end.
        sun: side the sun stands on, -1 or 1, or 0 under clouds.
        light: on the left walls, the right walls, and the walls that face the camera.
        bare: whether trees are bare.
        things: what to paint, in no order.
        shadows, side_streets, lawns: patches on the ground.
    """

    camera: Camera
    lane: float
    lanes: int
    road: tuple[float, float]
    kerbs: tuple[float, float]
    fronts: tuple[float, float]
    walls: tuple[float, float]
    end: float
    closed: bool
    sun: int
    light: tuple[float, float, float]
    bare: bool
    parked: tuple[float, float]
    things: list[Thing] = field(default_factory=list)
    shadows: list[Patch] = field(default_factory=list)
    side_streets: list[Patch] = field(default_factory=list)
    lawns: list[Patch] = field(default_factory=list)

    def add(self, draw: Callable[..., None], x: float, z: float, margin: float = 2.0, **how: object) -> None:
        """Put a thing at (x, z), within `margin` metres of it, unless it is out of the camera's sight."""
        if self.camera.sees(x, z, z, margin):
            self.things.append(Thing(z, partial(draw, x=x, z=z, **how)))

    def cast(self, x: float, z: float, radius: float, height: float) -> None:
        """The round shadow of a crown at `height` metres."""
        if self.sun:
            turn = np.linspace(0, 2 * np.pi, 14, endpoint=False)
            wobble = radius * (1 + 0.2 * np.sin(3 * turn + z))
            centre = x - self.sun * 0.9 * height, z + 0.3 * height
            outline = np.stack([wobble * np.cos(turn), wobble * np.sin(turn)], 1)
            self.shadows.append(outline + centre)


def draw_camera(dice: Dice, look: Look, size: tuple[int, int]) -> Camera:
    """A camera for a picture of `size` = (height, width)."""
    return Camera(
        *size, focal=dice(*look.focal), horizon=dice(*look.horizon), eye=dice(*look.eye),
        drift=dice(-look.drift, look.drift), bend=dice(-look.bend, look.bend), mirror=dice.pick((1, -1)),
    )  # fmt: skip


def lay_out(dice: Dice, look: Look, camera: Camera) -> Street:
    """Draw a street and everything in it."""
    street = _cross_section(dice, look, camera)
    for side in (-1, 1):
        _front(street, dice, look, side)
        _kerbside(street, dice, look, side)
        _parked(street, dice, look, side)
        _walkers(street, dice, look, side)
    _traffic(street, dice, look)
    _cyclists(street, dice, look)
    _skyline(street, dice, look)
    return street


def _cross_section(dice: Dice, look: Look, camera: Camera) -> Street:
    lanes, lane = dice.pick(look.lanes), dice(*look.lane_width)
    place = dice.integer(0, (lanes + 1) // 2 - 1)
    left = -lane * (place + 0.5)
    road = left, left + lanes * lane
    chance, taken = look.parked
    bays = [dice.chance(chance) for _ in range(2)]
    kerbs = road[0] - 2.1 * bays[0], road[1] + 2.1 * bays[1]
    fronts = kerbs[0] - dice(*look.pavement), kerbs[1] + dice(*look.pavement)
    gardens = [dice(2.0, 6.0) if dice.chance(look.setback) else 0.0 for _ in range(2)]
    walls = fronts[0] - gardens[0], fronts[1] + gardens[1]
    sun = dice.pick((-1, 1)) if dice.chance(look.sunny[0]) else 0
    lit, shaded = dice(1.0, 1.15), dice(0.55, 0.72)
    light = (lit, shaded) if sun == 1 else (shaded, lit) if sun == -1 else (0.88, 0.88)
    return Street(
        camera, lane, lanes, road, kerbs, fronts, walls, end=dice(60, 140), closed=dice.chance(0.4), sun=sun,
        light=(*light, dice(0.7, 1.0)), bare=dice.chance(look.bare),
        parked=(taken * dice(0.6, 1.5) * bays[0], taken * dice(0.6, 1.5) * bays[1]),
    )  # fmt: skip


def _depth(dice: Dice, near: float, far: float) -> float:
    """A depth in metres, as likely in each octave: pictures show all scales alike."""
    return near * (far / near) ** dice()


def _front(street: Street, dice: Dice, look: Look, side: int) -> None:
    """Terraces, parks and side streets along one side."""
    which = 0 if side < 0 else 1
    z, typical = dice(-12, -2), dice(*look.storeys)
    while z < street.end:
        chance = dice()
        if chance < look.gap and z > 2:
            length = dice(7, 11)
            x, far = street.kerbs[which], street.kerbs[which] + side * 70
            corners = (x, z + 1), (x, z + length - 1), (far, z + length), (far, z)
            street.side_streets.append(np.array(corners))
        elif chance < look.gap + look.park:
            length = dice(14, 32)
            _park(street, dice, look, side, (z, z + length))
        else:
            length = _terrace(street, dice, look, side, z, max(1, round(typical + dice(-1, 1))))
        z += length


def _terrace(street: Street, dice: Dice, look: Look, side: int, z: float, storeys: int) -> float:
    """A row of houses from depth z on; returns its length in metres."""
    which, start = (0 if side < 0 else 1), z
    house: House | None = None
    same = dice.chance(0.5)
    for _ in range(dice.integer(1, 4)):
        length = dice(5, 14)
        if z + length > 1.5 and street.camera.sees(street.walls[which], max(z, 1.2), z + length, reach=1.0):
            high = storeys if same else max(1, storeys + dice.integer(-1, 1))
            house = build(dice, look, high, house if same else None)
            x, light = street.walls[which], (street.light[which], street.light[2])
            paint = partial(
                building, house=house, x=x, z=(z, z + length), depth=dice(8, 14), light=light, corner=z == start
            )
            street.things.append(Thing(z + length, paint))
            if street.sun == side:
                reach = x - side * house.height * 0.9, 0.35 * house.height
                corners = (x, z), (reach[0], z + reach[1]), (reach[0], z + length + reach[1]), (x, z + length)
                street.shadows.append(np.array(corners))
            if house.shop and 3 < z < 60 and dice.chance(0.5):
                at = z + dice(0, length)
                street.add(objects.hanging_sign, x - side * 0.6, at, look=look)
        z += length
    if abs(street.walls[which] - street.fronts[which]) > 0.1:
        _garden(street, dice, look, side, (max(start, 1.5), z))
    return z - start


def _garden(street: Street, dice: Dice, look: Look, side: int, z: tuple[float, float]) -> None:
    """A fence or hedge and some green between the pavement and the houses."""
    which = 0 if side < 0 else 1
    x, wall = street.fronts[which], street.walls[which]
    if z[1] <= z[0]:
        return
    if dice.chance(0.7):
        street.lawns.append(np.array([(x, z[0]), (x, z[1]), (wall, z[1]), (wall, z[0])]))
    _boundary(street, dice, look, x, z)
    for _ in range(dice.integer(0, 2)):
        at = dice(*z)
        if at > 4:
            street.add(objects.bush, (x + wall) / 2, at, look=look, width=dice(1.5, 3), height=dice(1.2, 3))


def _boundary(street: Street, dice: Dice, look: Look, x: float, z: tuple[float, float]) -> None:
    kind = dice.pick(("railing", "boards", "hedge", "railing", "none"))
    if kind == "railing":
        height, at = dice(0.9, 1.6), z[0]
        while at < min(z[1], 60):  # in pieces, so that nearer things can stand between
            step = min(8.0, z[1] - at)
            paint = partial(objects.railing, look=look, x=x, z=at, length=step, height=height)
            street.things.append(Thing(at + step, paint))
            at += step
    elif kind == "boards":
        paint = partial(objects.panel_fence, look=look, start=(x, z[0]), end=(x, z[1]), height=dice(1.1, 1.9))
        street.things.append(Thing(z[1], paint))
    elif kind == "hedge":
        at, height = z[0] + 0.5, dice(1.0, 2.2)
        while at < min(z[1], 45):
            if at > 2.5:
                width, tall = dice(2.0, 3.0), height * dice(0.85, 1.1)
                street.add(objects.bush, x, at, look=look, width=width, height=tall)
            at += 1.3 + at * 0.05


def _park(street: Street, dice: Dice, look: Look, side: int, z: tuple[float, float]) -> None:
    """A lawn with trees behind a fence."""
    which = 0 if side < 0 else 1
    x, near = street.fronts[which], max(z[0], 1.5)
    if z[1] <= near:
        return
    street.lawns.append(np.array([(x, near), (x, z[1]), (x + side * 40, z[1]), (x + side * 40, near)]))
    if dice.chance(0.75):
        _boundary(street, dice, look, x, (near, z[1]))
    for _ in range(dice.integer(2, 5)):
        at = dice(near, z[1])
        if at > 5:
            _tree(street, dice, look, x + side * dice(2, 16), at, dice(7, 15))


def _tree(street: Street, dice: Dice, look: Look, x: float, z: float, height: float) -> None:
    bare = street.bare != dice.chance(0.12) if look.bare else False
    light = street.light[0 if x < 0 else 1]
    street.add(objects.tree, x, z, 0.5 * height, look=look, height=height, bare=bare, light=light)
    street.cast(x, z, 0.35 * height, 0.6 * height)


def _kerbside(street: Street, dice: Dice, look: Look, side: int) -> None:
    """Lamps, posts, signs, trees and railings along one kerb."""
    which = 0 if side < 0 else 1
    kerb = street.kerbs[which]
    x, height, z, step = kerb + side * 0.5, dice(5, 8.5), dice(5, 24), dice(22, 38)
    while z < 90:
        street.add(objects.lamp_post, x, z, look=look, height=height, reach=-side * dice(0.8, 1.8))
        z += step
    for _ in range(dice.count(look.signs / 2)):
        z = _depth(dice, 6, 45)
        kind = objects.sign_post if dice.chance(0.65) else objects.traffic_light
        street.add(kind, kerb + side * dice(0.3, 0.8), z, look=look)
    for _ in range(dice.count(look.posts / 4)):
        z, height = _depth(dice, 5, 35), dice(0.9, 1.1) if dice.chance(0.65) else dice(3, 7)
        for i in range(dice.integer(1, 4) if height < 1.5 else 1):
            street.add(objects.post, x, z + 1.8 * i, look=look, height=height)
    if dice.chance(look.tree_row):
        z, spacing, height = dice(6, 14), dice(*look.tree_spacing), dice(6, 13)
        while z < 70:
            _tree(street, dice, look, kerb + side * 0.9, z, height * dice(0.8, 1.2))
            z += spacing * dice(0.8, 1.3)
    if dice.chance(look.railing):
        z = _depth(dice, 4, 25)
        for i in range(dice.integer(1, 3)):
            far = z + 6 * i + 6
            paint = partial(objects.railing, look=look, x=kerb + side * 0.3, z=far - 6, length=6, height=1.1)
            street.things.append(Thing(far, paint))


def _parked(street: Street, dice: Dice, look: Look, side: int) -> None:
    which = 0 if side < 0 else 1
    taken, z = street.parked[which], dice(3.5, 8)
    while taken and z < 70:
        if dice.chance(taken):
            x = street.kerbs[which] - side * dice(0.95, 1.15)
            model = dice.pick(vehicles.CARS)
            street.add(vehicles.vehicle, x, z, look=look, model=model, away=dice.chance(0.8) == (side < 0))
        z += dice(5.4, 7.5)


def _walkers(street: Street, dice: Dice, look: Look, side: int) -> None:
    which = 0 if side < 0 else 1
    kerb, front = street.kerbs[which], street.fronts[which]
    for _ in range(dice.count(look.pedestrians / 3)):
        z, x = _depth(dice, 5, 45), dice(kerb + side * 0.3, front - side * 0.3)
        if z > 8 and dice.chance(0.15):
            x = dice(*street.kerbs)
        for i in range(dice.pick((1, 1, 2))):
            size = dice(1.55, 1.9) if dice.chance(0.88) else dice(1.0, 1.4)
            street.add(people.pedestrian, x + 0.55 * i, z + 0.3 * i, look=look, size=size)


def _traffic(street: Street, dice: Dice, look: Look) -> None:
    for lane in range(street.lanes):
        x, away = street.road[0] + street.lane * (lane + 0.5), lane < (street.lanes + 1) // 2
        z = dice(9, 30) if away else dice(5, 30)
        for _ in range(dice.count(look.traffic / street.lanes)):
            model = dice.pick(vehicles.TRAFFIC)
            if z < 75:
                street.add(vehicles.vehicle, x + dice(-0.3, 0.3), z, look=look, model=model, away=away)
            z += dice(8, 25) + 6 * (model == "bus")
    if dice.chance(0.15):
        z, x = dice(14, 40), dice(*street.kerbs)
        model = dice.pick(vehicles.CARS)
        street.add(vehicles.crossing_vehicle, x, z, 3.0, look=look, model=model)


def _cyclists(street: Street, dice: Dice, look: Look) -> None:
    for _ in range(dice.count(look.cyclists)):
        z, along = _depth(dice, 5.5, 28), dice.chance(0.8)
        edge = street.road[0] + dice(0.3, 1.6) if dice.chance(0.65) else street.road[1] - dice(0.3, 1.6)
        x = edge if along else dice(*street.kerbs)
        street.add(people.bicyclist, x, z, look=look, along=along)


def _skyline(street: Street, dice: Dice, look: Look) -> None:
    """The far end of the street and what lies behind the houses."""
    z = 190.0
    middle, half = -street.camera.offset(z), 0.55 * z / street.camera.focal
    x = middle - half
    while x < middle + half:
        width = dice(12, 40)
        if dice.chance(0.55):
            _block(street, dice, look, (x, z), width)
        else:
            _tree(street, dice, look, x + width / 2, z, dice(9, 20))
        x += width * 0.9
    if street.closed:
        x, z = -45.0, street.end + 14
        while x < 45:
            width = dice(7, 16)
            if street.camera.sees(x, z, z, width):
                _block(street, dice, look, (x, z), width)
            x += width


def _block(street: Street, dice: Dice, look: Look, corner: tuple[float, float], width: float) -> None:
    """A building across the view whose left corner stands at (x, z)."""
    x, z = corner
    house = build(dice, look, dice.integer(2, 5))
    paint = partial(facade, house=house, start=corner, end=(x + width, z), light=street.light[2])
    street.things.append(Thing(z, paint))
