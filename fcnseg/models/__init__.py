"""Networks: backbones, the FCN over them, the registry that names them, and weights in and out."""

from fcnseg.models.build import build
from fcnseg.models.caffemodel import read_caffemodel
from fcnseg.models.description import describe_weights
from fcnseg.models.fcn import FCN
from fcnseg.models.loading import from_pretrained, load_checkpoint
from fcnseg.models.low_rank import factorise
from fcnseg.models.names import list_models
from fcnseg.models.optimised import OptimisedFCN, optimise
from fcnseg.models.registry import create_model
from fcnseg.models.spec import ModelSpec
from fcnseg.models.summary import summarise
from fcnseg.models.upsampling import at_own_sizes, likeliest, resample, resampled_rows, segmented
from fcnseg.models.weights import LoadReport, load_caffe_weights, load_weights

__all__ = [
    "FCN",
    "LoadReport",
    "ModelSpec",
    "OptimisedFCN",
    "at_own_sizes",
    "build",
    "create_model",
    "describe_weights",
    "factorise",
    "from_pretrained",
    "likeliest",
    "list_models",
    "load_caffe_weights",
    "load_checkpoint",
    "load_weights",
    "optimise",
    "read_caffemodel",
    "resample",
    "resampled_rows",
    "segmented",
    "summarise",
]
