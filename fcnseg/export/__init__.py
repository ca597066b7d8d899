"""Networks for other runtimes: written, quantised, and proved against PyTorch before they are called done."""

from fcnseg.export.making import FORMATS, PRECISIONS_OF, Recipe, export
from fcnseg.export.proof import Proof, prove

__all__ = ["FORMATS", "PRECISIONS_OF", "Proof", "Recipe", "export", "prove"]
