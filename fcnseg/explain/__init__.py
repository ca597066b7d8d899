"""Inside a network: what its layers see and give, what a pixel depends on, and which skip decides it."""

from fcnseg.explain.activations import activations, filters, first_layer, layer_grid, layer_names, scored_layers
from fcnseg.explain.figures import field_figure, gradcam_figure, skips_figure
from fcnseg.explain.gradcam import grad_cam
from fcnseg.explain.receptive import ReceptiveField, TapField, effective_field, effective_size, receptive_field
from fcnseg.explain.seen import Seen, look
from fcnseg.explain.sheets import activation_sheet, filter_sheet
from fcnseg.explain.skips import Contributions, Decision, SkipMaps, contributions, decision, margins, skip_maps

__all__ = [
    "Contributions",
    "Decision",
    "ReceptiveField",
    "Seen",
    "SkipMaps",
    "TapField",
    "activation_sheet",
    "activations",
    "contributions",
    "decision",
    "effective_field",
    "effective_size",
    "field_figure",
    "filter_sheet",
    "filters",
    "first_layer",
    "grad_cam",
    "gradcam_figure",
    "layer_grid",
    "layer_names",
    "look",
    "margins",
    "receptive_field",
    "scored_layers",
    "skip_maps",
    "skips_figure",
]
