"""A network as notebooks show it: what goes in and comes out, and what lies between."""

from collections.abc import Mapping, Sequence

from fcnseg.geometry import Grid
from fcnseg.labels import LabelSpace
from fcnseg.models.spec import ModelSpec
from fcnseg.views import swatches, table, view


def network_view(spec: ModelSpec, parameters: int, scored: Sequence[str], grids: Mapping[str, Grid]) -> str:
    """HTML with a network's size, scored taps, input and classes.

    Args:
        scored: the taps whose scores are added up, coarse to fine.
        grids: by the name of a tap, where its samples lie on the image.
    """
    size = "of any size" if spec.input_size is None else "seen at {} x {}".format(*spec.input_size)
    scaling = "" if spec.scaling is None else f", {spec.scaling}"
    taps = ", ".join(f"{tap} (stride {grids[tap].stride}, sees {grids[tap].receptive_field} pixels)" for tap in scored)
    rows = [
        ("input", f"{spec.image_type} images of {spec.in_channels} channels {size}{scaling}"),
        ("taps", taps),
        ("head", f"dropout {spec.dropout:g}, padding {spec.padding}, width {spec.width:g}"),
    ]
    title = f"{spec.name}: {parameters / 1e6:.2f} M parameters, {spec.num_classes} classes"
    if spec.label_space is None:
        return view(title, table(rows))
    space = LabelSpace.from_dict(spec.label_space, "the model")
    return view(title, table(rows), swatches(space.classes, space.palette))
