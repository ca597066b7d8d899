"""Images as networks see them: as the predictor shows them, with the way between both sizes."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from fcnseg.data import STREET11, CityScenes
from fcnseg.errors import InputError
from fcnseg.explain import look
from fcnseg.inference import Predictor
from fcnseg.models import optimise
from tests.explain.networks import scored


def test_the_room_is_there_without_being_imported():
    """As `import fcnseg` alone has it."""
    code = "import sys, fcnseg; assert 'torch' not in sys.modules; print(fcnseg.explain.look.__module__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "fcnseg.explain.seen"


@pytest.mark.parametrize("size", [(75, 91), (48, 64), (200, 80)])
@pytest.mark.parametrize(
    ("spec", "scale"),
    [
        ({"input_size": (48, 64), "resize": "stretch"}, "training"),
        ({"input_size": (48, 64), "resize": "keep"}, "training"),
        ({"input_size": (48, 64)}, "native"),
        ({"input_size": (48, 64)}, 0.75),
        ({}, "training"),
    ],
)
def test_classes_at_every_pixel_are_the_predictors(size, spec, scale):
    model = scored("fcn8s_alexnet", num_classes=5, **spec)
    image = CityScenes(1, seed=3, look="real", size=size)[0][0]
    seen = look(model, image, scale)
    assert seen.size == size
    with torch.no_grad():
        logits = seen.own_rows(model(seen.images), 0, size[0])[0]
    np.testing.assert_array_equal(logits.argmax(0).numpy(), Predictor(model, "cpu", scale=scale)(image).mask)


def test_places_on_the_image_and_in_the_network():
    seen = look(scored("fcn8s_alexnet", input_size=(50, 100), resize="stretch"), np.zeros((100, 400, 3), np.uint8))
    assert seen.network_pixel((0, 0)) == (0, 0)
    assert seen.network_pixel((99, 399)) == (49, 99)
    assert seen.network_pixel((51, 203)) == (25, 50)
    assert seen.own_place((-0.5, 99.5)) == (-0.5, 399.5)  # edges lie on edges
    row, column = seen.own_place((25, 50))
    assert seen.network_pixel((round(row), round(column))) == (25, 50)


def test_of_a_padded_image_places_are_those_of_what_is_shown():
    seen = look(scored("fcn8s_alexnet", input_size=(50, 100), resize="keep"), np.zeros((100, 100, 3), np.uint8))
    assert seen.images.shape[-2:] == (50, 100)
    assert seen.shown == (50, 50)
    assert seen.network_pixel((99, 99)) == (49, 49)


@pytest.mark.parametrize("pixel", [(60, 0), (-1, 3), (0, 80), (1.5, 2), (1,), (True, 2)])
def test_pixels_outside_are_refused(pixel):
    seen = look(scored("fcn8s_alexnet"), np.zeros((60, 80, 3), np.uint8))
    with pytest.raises(InputError, match="expected a row from 0 to 59 and a column from 0 to 79"):
        seen.require_pixel(pixel)
    assert seen.require_pixel([59, 79]) == (59, 79)


def test_networks_without_gradients_are_refused():
    with pytest.raises(InputError, match="explain the one that it was made of"):
        look(optimise(scored("fcn8s_alexnet")), np.zeros((60, 80, 3), np.uint8))


def test_classes_by_name_and_number():
    model = scored("fcn8s_alexnet", num_classes=11, label_space=STREET11.to_dict())
    seen = look(model, np.zeros((60, 80, 3), np.uint8))
    assert seen.class_index("road") == seen.class_index(3) == 3
    with pytest.raises(InputError, match="class=raod: no class of this network; did you mean road"):
        seen.class_index("raod")
    with pytest.raises(InputError, match="class=11: no class of this network; expected one of sky, building"):
        seen.class_index(11)
