"""Networks: backbones, the FCN over them, the registry that names them, and weights in and out."""

from fcnseg.models.caffemodel import read_caffemodel
from fcnseg.models.checkpoint import default_device, load_checkpoint
from fcnseg.models.fcn import FCN, resample
from fcnseg.models.registry import create_model, list_models
from fcnseg.models.spec import ModelSpec
from fcnseg.models.store import from_pretrained
from fcnseg.models.summary import summarise
from fcnseg.models.weights import LoadReport, describe_weights, load_caffe_weights, load_weights

__all__ = [
    "FCN",
    "LoadReport",
    "ModelSpec",
    "create_model",
    "default_device",
    "describe_weights",
    "from_pretrained",
    "list_models",
    "load_caffe_weights",
    "load_checkpoint",
    "load_weights",
    "read_caffemodel",
    "resample",
    "summarise",
]
