"""Scores from one confusion matrix, and reports of them."""

from fcnseg.evaluation.evaluator import Evaluation, evaluate, write_report
from fcnseg.evaluation.metrics import Scores, scores

__all__ = ["Evaluation", "Scores", "evaluate", "scores", "write_report"]
