"""Adaptation: what a training learns from images of a domain without their labels."""

from fcnseg.training.adaptation.classmix import ClassMix
from fcnseg.training.adaptation.entropy import MinimumEntropy
from fcnseg.training.adaptation.method import Adaptation

__all__ = ["Adaptation", "ClassMix", "MinimumEntropy"]
