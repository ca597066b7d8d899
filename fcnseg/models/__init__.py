"""Networks: backbones, the FCN over them, and the registry that names them."""

from fcnseg.models.checkpoint import default_device, load_checkpoint
from fcnseg.models.fcn import FCN, resample
from fcnseg.models.registry import create_model, list_models
from fcnseg.models.spec import ModelSpec

__all__ = ["FCN", "ModelSpec", "create_model", "default_device", "list_models", "load_checkpoint", "resample"]
