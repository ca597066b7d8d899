"""Scores from one confusion matrix, comparisons of methods, and reports."""

from fcnseg.evaluation.calibration import Calibration, calibrate
from fcnseg.evaluation.comparison import Comparison, Interval, bootstrap, load_matrices, paired_bootstrap
from fcnseg.evaluation.evaluator import Evaluation, evaluate, write_report
from fcnseg.evaluation.metrics import Scores, scores
from fcnseg.evaluation.protocol import Protocol

__all__ = [
    "Calibration",
    "Comparison",
    "Evaluation",
    "Interval",
    "Protocol",
    "Scores",
    "bootstrap",
    "calibrate",
    "evaluate",
    "load_matrices",
    "paired_bootstrap",
    "scores",
    "write_report",
]
