"""The embedded street scenes: perspective streets with exact masks, to train on and to write to disk."""

from fcnseg.data.citygen.scenes import LOOKS, CityScenes, render_scene
from fcnseg.data.citygen.synthia_layout import write_synthia

__all__ = ["LOOKS", "CityScenes", "render_scene", "write_synthia"]
