"""Inference: the predictor and its pictures."""

from fcnseg.inference.averaging import Averaging
from fcnseg.inference.predictor import Predictor
from fcnseg.inference.segmentation import Segmentation

__all__ = ["Averaging", "Predictor", "Segmentation"]
