"""Training: the Lightning module, losses, parameter groups and schedules."""

from fcnseg.training.module import SegmentationModule

__all__ = ["SegmentationModule"]
