"""Inference: the predictor and its pictures."""

from fcnseg.inference.predictor import Predictor, Segmentation

__all__ = ["Predictor", "Segmentation"]
